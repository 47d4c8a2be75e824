"""The fuzz targets without the fuzzer, so that they cannot rot: `make fuzz` is what drives them."""

import itertools
from random import Random

import pytest

from fuzz.targets import TARGETS, target

SEEDS = 12
"""Of each target, spread over all that it has."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_accepts_its_seeds(name: str) -> None:
    """Recorded and made-up inputs, and some of them with bytes changed, hold what the target asserts."""
    chosen = target(name)
    seeds = list(chosen.seeds())
    assert seeds
    assert all(chosen.words)
    rng = Random(name)  # noqa: S311 - reproducible
    for seed in itertools.islice(seeds, 0, None, -(-len(seeds) // SEEDS)):
        chosen.check(seed)
        changed = bytearray(seed)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        chosen.check(bytes(changed))
