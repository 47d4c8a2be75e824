"""The fields of what users write, as docs/manifests.md.

The shapes of `keytrail.domain.resources` come in, Markdown goes out: one table for each kind, a row for each field,
with the words of `kubectl explain`. `python -m keytrail.domain.manifest_page docs/manifests.md` renews the page; a test
fails when it is stale. Knows no manifest.
"""

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final

from keytrail.domain.policy_library import PolicyLibrarySpec
from keytrail.domain.resources import MappingSpec
from keytrail.domain.rules import DetectionRuleSpec
from keytrail.domain.schema import plain
from keytrail.domain.shape import Doc, Rules, ShapeField, fields_of, rules_of

_HEAD: Final = """\
# Manifests: every field

<!-- Made by `python -m keytrail.domain.manifest_page`; do not edit. -->

Three things are written by users: identity mappings ([how](identities.md)), detection rules
([how](rule-language.md#a-first-rule)) and one PolicyLibrary, which switches and tunes what is shipped
([how](rules.md)). Each is a document in a YAML file of the folder that `--config` names, which is read recursively and
again within two seconds of a change; or an object in the cluster, where `kubectl explain` has the same words.

Every one begins with

```yaml
apiVersion: keytrail.io/v1alpha1
kind: ClusterIdentityMapping      # or IdentityMapping, DetectionRule, PolicyLibrary
metadata: {name: openai-prod}     # an IdentityMapping has a namespace, too; the PolicyLibrary is called default
```

Unknown fields are refused. `[]` marks the items of a list, **required** is a field without which the one around it is
refused.
"""
_KINDS: Final = (
    ("IdentityMapping and ClusterIdentityMapping", MappingSpec),
    ("DetectionRule", DetectionRuleSpec),
    ("PolicyLibrary", PolicyLibrarySpec),
)


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_tables()]).rstrip() + "\n"


def _tables() -> Iterator[str]:
    for title, spec in _KINDS:
        yield f"## {title}\n\n| field | type | default | meaning |\n| --- | --- | --- | --- |"
        yield from _rows(spec, "spec")
        yield _between(rules_of(spec)) and f"\n{_between(rules_of(spec))}\n"


def _rows(shape: type, path: str) -> Iterator[str]:
    for field in fields_of(shape):
        name, inner = f"{path}.{field.name}", _shape_in(field.type)
        said = _example(field.doc) if inner is None else _between(rules_of(inner))
        # A bar would end the cell, a star could begin markup.
        meaning = field.doc.description.replace("|", "\\|").replace("*", "\\*")
        cells = (f"`{name}`", _type(field.type, field.doc), _default(field), f"{meaning} {said}".rstrip())
        yield f"| {' | '.join(cells)} |"
        if inner is not None:
            yield from _rows(inner, f"{name}[]" if typing.get_origin(field.type) is tuple else name)


def _shape_in(type_: Any) -> type | None:
    """The shape that a field holds, alone, in a list or perhaps."""
    for one in (type_, *typing.get_args(type_)):
        if isinstance(one, type) and dataclasses.is_dataclass(one):
            return one
    return None


def _type(type_: Any, doc: Doc) -> str:
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is types.UnionType:
        return _type(next(one for one in arguments if one is not types.NoneType), doc)
    if origin is tuple:
        return f"list: {_type(arguments[0], doc)}"
    if origin is not None or dataclasses.is_dataclass(type_):
        return "mapping"
    if issubclass(type_, Enum):
        return " ".join(f"`{member.value}`" for member in type_)
    words = {bool: "true or false", int: "whole number", float: "number"}.get(type_, "text")
    return words if doc.minimum is None else f"{words}, {doc.minimum:g} to {doc.maximum:g}"


def _default(field: ShapeField) -> str:
    if field.default is dataclasses.MISSING:
        return "**required**"
    value = None if dataclasses.is_dataclass(field.default) else plain(field.default)
    return "" if value in (None, "", [], {}) else f"`{_written(value)}`"


def _example(doc: Doc) -> str:
    example = _written(plain(doc.example)).replace("|", "\\|")
    return f"Example: `{example}`"


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _between(rules: Rules) -> str:
    """What holds between the fields of an object."""
    counted = (
        ("Exactly one of", rules.exactly_one_of),
        ("At least one of", rules.at_least_one_of),
        ("At most one of", rules.at_most_one_of),
    )
    return " ".join(f"{words} {', '.join(f'`{name}`' for name in names)}." for words, names in counted if names)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), "utf-8")
