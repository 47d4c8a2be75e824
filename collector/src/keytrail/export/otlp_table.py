"""Tables of attributes as functions: a domain object goes in, its attributes' bytes come out, as text.

Each `Group` of `attributes` becomes one function of straight-line code, compiled once at start: walking the table for
every record, with a call for each row's value and another for its bytes, takes three times as long, and attributes are
what an exported event costs. Knows no record and no resource; `otlp_encode` puts those together.

The quick function puts a message together as text, each byte a character of the same number (Latin-1): what stands
around the values is known as text, and ASCII values are their own bytes, so that a whole record is encoded at once
and nothing value by value. Other values, which are rare, have to be.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, Generic

from keytrail.export.attributes import Group, Row, S
from keytrail.export.otlp_wire import (
    LAST,
    NOT_LAST,
    RECORD_ATTRIBUTES,
    RESOURCE_ATTRIBUTES,
    ValueType,
    attribute_writer,
    integer_prefixes,
    string_prefixes,
    text_table,
    text_writer,
    varint_text,
)

# What stands for one row. `v` is its value; an absent one (None, an empty text or list) writes nothing, but 0 and
# False are values. `p` is what stands in front of a value by its length, nothing for none; `w` writes whole attributes.
# Numbers of up to three bytes, which nearly all are, are written in place: a call costs more than the rest.
_READ: Final[dict[ValueType, tuple[str, ...]]] = {
    "string": ("v{row} = {value} or ''",),
    "int": (
        "v = {value}",
        "if v is None: v{row} = ''",
        "elif 0 <= v < 128: v{row} = one{row} + last[v]",
        "elif 0 <= v < 16384: v{row} = f'{{two{row}}}{{more[v & 127]}}{{last[v >> 7]}}'",
        "elif 0 <= v < 2097152: v{row} = f'{{three{row}}}{{more[v & 127]}}{{more[v >> 7 & 127]}}{{last[v >> 14]}}'",
        "else:",
        "    v = varint(v)",
        "    v{row} = p{row}[len(v)] + v",
    ),
    "boolean": ("v = {value}", "v{row} = '' if v is None else yes{row} if v else no{row}"),
    "string[]": ("v = {value}", "v{row} = w{row}(v) if v else ''"),
    "int[]": ("v = {value}", "v{row} = w{row}(v) if v else ''"),
}


class Table(Generic[S]):
    """A group's attributes, or some of them."""

    def __init__(self, group: Group[S], rows: Sequence[Row[S]] | None = None) -> None:
        tag = RESOURCE_ATTRIBUTES if group.where == "resource" else RECORD_ATTRIBUTES
        chosen = group.rows if rows is None else rows
        self._quick = _compiled(tag, chosen)
        self._careful = [(_value_of(value), attribute_writer(tag, name, type_)) for name, type_, _, value in chosen]

    def text(self, source: S | None) -> str:
        """All attributes that the source has, a character for each byte; none for a source that is None."""
        if source is None:
            return ""
        quick = self._quick(source)
        if quick is not None:
            return quick
        values = ((value_of(source), write) for value_of, write in self._careful)
        return b"".join([write(value) for value, write in values if value not in {None, "", ()}]).decode("latin-1")

    def encode(self, source: S | None) -> bytes:
        """Return the same as bytes."""
        return self.text(source).encode("latin-1")


def _value_of(value: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    if not isinstance(value, str):
        return value
    made: Callable[[Any], Any] = eval(f"lambda s: s.{value}")  # noqa: S307 - made of our own tables alone
    return made


def _compiled(tag: bytes, rows: Sequence[Row[Any]]) -> Callable[[Any], str | None]:
    """Make the quick function; it returns None when a value is not ASCII."""
    names: dict[str, Any] = {"varint": varint_text, "last": LAST, "more": NOT_LAST}
    lines, checked, written = ["def text(s):"], "", ""
    for row, (name, type_, _, value_of) in enumerate(rows):
        value = f"s.{value_of}" if isinstance(value_of, str) else f"g{row}(s)"
        lines += (f"    {line.format(row=row, value=value)}" for line in _READ[type_])
        names[f"g{row}"] = value_of
        if type_ == "string":
            names[f"p{row}"] = text_table(string_prefixes(tag, name), write_empty=False)
            checked += f"{{v{row}}}"
            written += f"{{p{row}[len(v{row})]}}"
        elif type_ == "int":
            prefixes = [prefix.decode("latin-1") for prefix in integer_prefixes(tag, name)]
            names[f"p{row}"] = prefixes
            names[f"one{row}"], names[f"two{row}"], names[f"three{row}"] = prefixes[1:4]
        elif type_ == "boolean":
            write = text_writer(attribute_writer(tag, name, type_))
            names[f"yes{row}"], names[f"no{row}"] = write(True), write(False)  # noqa: FBT003 - values, not options
        else:
            names[f"w{row}"] = text_writer(attribute_writer(tag, name, type_))
        written += f"{{v{row}}}"
    if checked:
        lines.append(f"    if not f'{checked}'.isascii(): return None")
    lines.append(f"    return f'{written}'")
    exec("\n".join(lines), names)  # noqa: S102 - made of our own tables alone
    compiled: Callable[[Any], str | None] = names["text"]
    return compiled
