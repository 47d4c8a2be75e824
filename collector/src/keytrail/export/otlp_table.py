"""Tables of attributes as functions: a domain object goes in, its attributes' bytes come out, as text.

Each `Group` of `attributes` becomes one function of straight-line code, compiled once at start: walking the table for
every record, with a call for each row's value and another for its bytes, takes three times as long, and attributes are
what an exported event costs. Knows no record and no resource; `otlp_encode` puts those together.

The quick function puts a message together as text, each byte a character of the same number (Latin-1): what stands
around the values is known as text, and ASCII values are their own bytes, so that a whole record is encoded at once
and nothing value by value. Other values, which are rare, have to be.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Generic, NamedTuple

from keytrail.export.attributes import Group, Row, S
from keytrail.export.bounded import Bounded
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


# The same for rows that follow from a few values, which are `value` together.
_REMEMBER: Final = (
    "k = {value}",
    "v{row} = kept{row}.get(k)",
    "if v{row} is None:",
    "    v{row} = made{row}(s)",
    "    if len(v{row}) <= longest: kept{row}.keep(k, v{row})",
)
_REMEMBERED: Final = 1024
"""Texts of each: far more than a node's programs have in common."""
_LONGEST: Final = 512
"""Characters of one: a path, which somebody else chooses, may have 4 KiB."""


class Shared(NamedTuple):
    """Rows of a table, one after the other, whose values follow from a few things that many sources have in common."""

    first: str
    last: str
    by: str
    """Those things: an expression over the source `s` whose value can be a key."""


class Table(Generic[S]):
    """A group's attributes, or some of them. What `shared` rows come to is made once for what they follow from."""

    def __init__(self, group: Group[S], rows: Sequence[Row[S]] | None = None, shared: Sequence[Shared] = ()) -> None:
        tag = RESOURCE_ATTRIBUTES if group.where == "resource" else RECORD_ATTRIBUTES
        self.text: Callable[[S | None], str] = _compiled(tag, group.rows if rows is None else rows, shared)
        """All attributes that the source has, a character for each byte; none for a source that is None."""

    def encode(self, source: S | None) -> bytes:
        """Return the same as bytes."""
        return self.text(source).encode("latin-1")


def _careful(tag: bytes, rows: Sequence[Row[Any]]) -> Callable[[Any], str]:
    """Make the function for sources with a value that is not ASCII."""
    pairs = [(_value_of(value), attribute_writer(tag, name, type_)) for name, type_, _, value in rows]

    def text(source: Any) -> str:
        values = ((value_of(source), write) for value_of, write in pairs)
        return b"".join([write(value) for value, write in values if value not in {None, "", ()}]).decode("latin-1")

    return text


def _value_of(value: str | Callable[[Any], Any]) -> Callable[[Any], Any]:
    if not isinstance(value, str):
        return value
    made: Callable[[Any], Any] = eval(f"lambda s: s.{value}")  # noqa: S307 - made of our own tables alone
    return made


def _compiled(tag: bytes, rows: Sequence[Row[Any]], shared: Sequence[Shared]) -> Callable[[Any], str]:
    """Make the quick function, which hands a source with a value that is not ASCII to the careful one."""
    names: dict[str, Any] = {"varint": varint_text, "last": LAST, "more": NOT_LAST, "longest": _LONGEST}
    names["careful"] = _careful(tag, rows)
    lines, checked, written = ["def text(s):", "    if s is None: return ''"], "", ""
    for number, (common, run) in enumerate(_runs(rows, shared)):
        if common is not None:
            lines += (f"    {line.format(row=number, value=common.by)}" for line in _REMEMBER)
            names[f"kept{number}"], names[f"made{number}"] = Bounded[Any, str](_REMEMBERED), _compiled(tag, run, ())
        else:
            ((_, type_, _, source),) = run
            value = f"s.{source}" if isinstance(source, str) else f"g{number}(s)"
            lines += (f"    {line.format(row=number, value=value)}" for line in _READ[type_])
            names |= _names_of(number, tag, run[0])
            if type_ == "string":
                checked += f"{{v{number}}}"
                written += f"{{p{number}[len(v{number})]}}"
        written += f"{{v{number}}}"
    if checked:
        lines.append(f"    if not f'{checked}'.isascii(): return careful(s)")
    lines.append(f"    return f'{written}'")
    exec("\n".join(lines), names)  # noqa: S102 - made of our own tables alone
    compiled: Callable[[Any], str] = names["text"]
    return compiled


def _runs(rows: Sequence[Row[Any]], shared: Sequence[Shared]) -> Iterator[tuple[Shared | None, Sequence[Row[Any]]]]:
    """Divide rows into those that are remembered together, and single ones."""
    begins, rest = {one.first: one for one in shared}, list(rows)
    while rest:
        common = begins.get(rest[0][0])
        size = 1 if common is None else [row[0] for row in rest].index(common.last) + 1
        yield common, rest[:size]
        del rest[:size]


def _names_of(row: int, tag: bytes, of: Row[Any]) -> dict[str, Any]:
    """What the lines of one row refer to."""
    name, type_, _, value_of = of
    names: dict[str, Any] = {f"g{row}": value_of}
    if type_ == "string":
        names[f"p{row}"] = text_table(string_prefixes(tag, name), write_empty=False)
    elif type_ == "int":
        prefixes = [prefix.decode("latin-1") for prefix in integer_prefixes(tag, name)]
        names[f"p{row}"] = prefixes
        names[f"one{row}"], names[f"two{row}"], names[f"three{row}"] = prefixes[1:4]
    elif type_ == "boolean":
        write = text_writer(attribute_writer(tag, name, type_))
        names[f"yes{row}"], names[f"no{row}"] = write(True), write(False)  # noqa: FBT003 - values, not options
    else:
        names[f"w{row}"] = text_writer(attribute_writer(tag, name, type_))
    return names
