"""What is fuzzed. Each target is a module of this folder with `seeds`, `WORDS` for the dictionary, and `check`."""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from typing import NamedTuple

TARGETS = ("http2", "framing", "protojson", "recording", "decode", "payloads", "redact", "spool", "answers", "kube")


class Target(NamedTuple):
    """One target."""

    check: Callable[[bytes], None]
    """Takes one input; raises when something that is asserted does not hold."""
    seeds: Callable[[], Iterator[bytes]]
    """Makes inputs that it accepts, most of them from recordings of a real agent."""
    words: Sequence[bytes]
    """Pieces that the formats are made of, which the fuzzer need not find out by itself."""


def target(name: str) -> Target:
    """Import a target, and with it the parts of the product that it is about."""
    module = import_module(f"fuzz.{name}")
    return Target(module.check, module.seeds, module.WORDS)
