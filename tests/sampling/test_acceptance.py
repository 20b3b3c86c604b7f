from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.sampling.acceptance import EntropyBound

entropies = st.lists(st.floats(0, 12), min_size=1, max_size=64)


@given(entropies, st.floats(1e-6, 50))
def test_at_least_the_surest_is_accepted(values: list[float], bound: float) -> None:
    entropy = torch.tensor(values)
    accepted = EntropyBound(bound).accept(entropy)
    assert accepted.any()
    assert entropy[accepted].min() == entropy.min()


@given(entropies, st.floats(1e-6, 50))
def test_accepted_are_surer_than_the_others(values: list[float], bound: float) -> None:
    entropy = torch.tensor(values)
    accepted = EntropyBound(bound).accept(entropy)
    if not accepted.all():
        assert entropy[accepted].max() <= entropy[~accepted].min()


@given(entropies, st.floats(1e-6, 50), st.floats(1, 4))
def test_monotone_in_the_bound(values: list[float], bound: float, factor: float) -> None:
    entropy = torch.tensor(values)
    narrow, wide = EntropyBound(bound).accept(entropy), EntropyBound(bound * factor).accept(entropy)
    assert not (narrow & ~wide).any()


def test_counts_what_stands_before_a_position() -> None:
    """0.06 + 0.06 exceeds 0.1 only for what comes after both: three of four are accepted."""
    accepted = EntropyBound(0.1).accept(torch.tensor([0.5, 0.06, 3.0, 0.06]))
    assert accepted.tolist() == [False, True, False, True]
    accepted = EntropyBound(0.13).accept(torch.tensor([0.5, 0.06, 3.0, 0.06]))
    assert accepted.tolist() == [True, True, False, True]
