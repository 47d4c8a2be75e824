"""Paths and their patterns, as mappings and rules spell them.

A path goes in, its one spelling comes out; a pattern goes in, an expression of RE2 comes out. Knows no file system.
"""

from typing import Final

import re2

_MOUNTED: Final = re2.compile(rb"/\.\.[0-9]{4}_[0-9]{2}_[0-9]{2}_[0-9_.]+(/|$)")


def plain_path(path: str) -> str:
    """Give a path one spelling: `/var/run` is `/run`, the kubelet's dated folder of a mounted Secret is left out."""
    if "/..2" in path:
        path = _MOUNTED.sub(rb"\1", path.encode("utf-8", "replace")).decode("utf-8", "replace")
    return path[4:] if path.startswith("/var/run") and path[8:9] in {"", "/"} else path


def path_expression(pattern: str) -> str:
    """Write a pattern as an expression for whole paths: `*` is any characters but `/`, `**` any characters."""
    pieces: list[str] = re2.findall(r"[*]+|[^*]+", plain_path(pattern))
    body = "".join(re2.escape(one) if one[0] != "*" else ".*" if len(one) > 1 else "[^/]*" for one in pieces)
    return rf"(?s)\A{body}\z"
