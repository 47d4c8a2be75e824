"""Values of a test's parameter, and when each of them runs."""

from collections.abc import Iterable

import pytest
from _pytest.mark.structures import ParameterSet


def with_long(all_of_them: Iterable[str], *long: str) -> list[str | ParameterSet]:
    """Values of a test's parameter, some of which run with `--long` only: they are larger and show no more."""
    return [pytest.param(one, marks=pytest.mark.long) if one in long else one for one in all_of_them]
