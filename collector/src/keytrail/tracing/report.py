"""What is gathered while a manifest is judged: problems, which keep it from loading, and warnings, which do not."""

from dataclasses import dataclass, field
from typing import Any

from keytrail.domain.errors import Problem
from keytrail.domain.shape import FieldPath, dotted
from keytrail.yaml_documents import Document


@dataclass(slots=True)
class Report:
    """Problems and warnings of one document, on the line of their field."""

    document: Document
    warnings: list[Problem] = field(default_factory=list)
    data: Any = field(init=False)
    """The manifest as plain data, without fields that are null: to the agent those are absent."""

    def __post_init__(self) -> None:
        self.data = without_nulls(self.document.data)

    def wrong(self, path: FieldPath, message: str) -> None:
        """Add what the agent refuses, or what makes the policy another one than it says."""
        self.document.add(path, message)

    def warn(self, path: FieldPath, message: str) -> None:
        """Add what the agent accepts, and then ignores or only some kernels can do."""
        self.warnings.append(Problem(self.document.path, self.document.line_of(path), dotted(path), message))


def without_nulls(data: Any) -> Any:
    """Return a copy without the fields that are null. Items of lists keep their places."""
    if isinstance(data, dict):
        return {name: without_nulls(value) for name, value in data.items() if value is not None}
    return [without_nulls(item) for item in data] if isinstance(data, list) else data
