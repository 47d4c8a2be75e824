"""What docs/backends.md tells users to write, so that exactly that is what runs here.

In: the page. Out: its queries, and its configurations of the OpenTelemetry Collector and of Loki, as data.
"""

import re
from functools import cache
from typing import Any

import yaml

from support.components.build import TESTS

_PAGE = TESTS.parent / "docs" / "backends.md"


def queries() -> list[str]:
    """The LogQL queries, in the page's order."""
    return _blocks("logql")


@cache
def configuration(section: str) -> dict[str, Any]:
    """The YAML that has a section of that name at its top."""
    (found,) = (one for one in map(yaml.safe_load, _blocks("yaml")) if section in one)
    return dict(found)


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.+?)\n```", _PAGE.read_text(), re.DOTALL)
