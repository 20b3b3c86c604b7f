"""The presets on nano, in small: four held-out jobs of each family. benchmarks/sampler.py makes the whole table."""

from __future__ import annotations

import pytest
import sampler

from dgemma_cli.sampling.presets import PRESETS

# Lost answers at the most, and passes saved at the least. For many prompts see benchmarks/RESULTS.md.
BOUNDS = {"quality": (0, 0.0), "balanced": (0, 0.35), "fast": (2, 0.4)}


@pytest.fixture(scope="module")
def reference() -> sampler.Tally:
    return sampler.measure("reference", sampler.NANO, count=4, seed=555)


def test_every_preset_is_measured() -> None:
    assert set(PRESETS) == {"reference", *BOUNDS}


@pytest.mark.parametrize("preset", BOUNDS)
def test_a_preset_keeps_its_promise(preset: str, reference: sampler.Tally) -> None:
    lost, saved = BOUNDS[preset]
    found = sampler.measure(preset, sampler.NANO, count=4, seed=555)
    assert sum(found.right) >= sum(reference.right) - lost
    assert sum(found.passes) <= (1 - saved) * sum(reference.passes)
    assert found.capped <= reference.capped + 1


def test_seeing_ahead_saves_the_most_that_stopping_can(reference: sampler.Tally) -> None:
    for seen, passes in zip(reference.first_said, reference.passes, strict=True):
        assert 1 <= seen <= passes
