"""Dataclasses that are frozen for the type checker alone.

A frozen dataclass sets each field through `object.__setattr__`, which makes an object of ten fields cost three times as
much; the parts of an event are made on the hot path, several for each event that a rule looks into. Who changes one is
stopped by mypy, not at run time. To be imported as `dataclasses.dataclass` where types are checked.
"""

from collections.abc import Callable
from dataclasses import dataclass


def value(*, frozen: bool, slots: bool) -> Callable[[type], type]:
    """Make a class a dataclass with a hash; `frozen` is what it is to the type checker."""
    return dataclass(slots=slots, unsafe_hash=frozen)
