"""Text that is safe to show: on a terminal, in a log line, on a page. Knows nothing of where it came from."""


def printable(text: str) -> str:
    """Escape whatever could act on a terminal or forge a line: control, format and other unprintable characters."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode() for char in text
    )
