"""Whole nats: sums that no order changes, and no overflow where somebody asks for a boundless bound."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.sampling.acceptance import EntropyBound
from dgemma_cli.sampling.nats import MOST, UNIT, whole


@given(st.lists(st.floats(0, 12.5, width=32), min_size=1, max_size=256), st.randoms())
def test_no_order_changes_a_sum(values: list[float], random: object) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert whole(torch.tensor(values)).cumsum(0)[-1] == whole(torch.tensor(shuffled)).sum()


@given(st.floats(0, 12.5, width=32))
def test_as_many_units_as_nats(value: float) -> None:
    assert abs(int(whole(value)) * UNIT - value) < UNIT


def test_a_bound_beyond_all_canvases_accepts_everything() -> None:
    entropy = torch.full((256,), 12.48)
    assert EntropyBound(1e30).accept(entropy).all()
    assert whole(1e30) == MOST / UNIT


def test_of_equally_sure_positions_the_first_are_accepted() -> None:
    assert EntropyBound(0.25).accept(torch.full((6,), 0.125)).tolist() == [True, True, True, False, False, False]
