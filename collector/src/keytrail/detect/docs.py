"""The environment as the tables of docs/rule-language.md.

The table of `environment` comes in, Markdown goes out. `python -m keytrail.detect.docs docs/rule-language.md` renews
the page; a test fails when it is stale. Knows no rule.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from keytrail.detect import environment

_BEGIN: Final = "<!-- environment: begin -->"
_END: Final = "<!-- environment: end -->"


def markdown() -> str:
    """The tables of docs/rule-language.md."""
    return "\n".join(_tables())


def _tables() -> Iterator[str]:
    yield "### Variables\n\n| variable | type | meaning |\n| --- | --- | --- |"
    for one in environment.VARIABLES:
        yield f"| `{one.name}` | {f'list of {one.message.name}' if one.many else one.message.name} | {one.meaning} |"
    yield "| `params` | the rule's `parameters` | Constants; text, numbers, booleans and lists of these. |\n"
    for message in environment.messages():
        yield f"### {message.name}\n\n| field | type | meaning |\n| --- | --- | --- |"
        for field in message.fields:
            marked = " `has()` tells whether it is there." if field.present else ""
            yield f"| `{field.name}` | {field.type} | {field.meaning}{marked} |"
        yield ""
    yield "### Functions\n\n| function | result | meaning |\n| --- | --- | --- |"
    for function in environment.FUNCTIONS:
        known = " The pattern must be known when the rule is loaded." if function.known >= 0 else ""
        call = f"{function.name}({', '.join(function.parameters)})"
        yield f"| `{call}` | {function.returns} | {function.meaning}{known} |"
    yield "\n### Of CEL itself\n\n| operators, functions, macros | note |\n| --- | --- |"
    for name, note in environment.STANDARD:
        yield f"| {name.replace('|', chr(92) + '|')} | {note} |"
    yield ""


def renewed(document: str) -> str:
    """Make the tables between the document's two marks anew."""
    before, _, rest = document.partition(_BEGIN)
    return f"{before}{_BEGIN}\n{markdown()}{_END}{rest.partition(_END)[2]}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(renewed(page.read_text("utf-8")), "utf-8")
