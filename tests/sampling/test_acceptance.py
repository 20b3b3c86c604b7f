from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

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


def far_apart(values: list[float], bound: float, spacing: int) -> list[bool]:
    """The definition of ``spacing``, position by position."""
    accepted = EntropyBound(bound).accept(torch.tensor(values)).tolist()
    refused = [place for place, taken in enumerate(accepted) if not taken]

    def doubt(place: int) -> tuple[float, int]:
        return values[place], place

    for place in refused:
        near = [other for other in refused if abs(other - place) < spacing]
        if near and min(near, key=doubt) == place:
            accepted[place] = True
    return accepted


few = st.lists(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 3.0]), min_size=1, max_size=40)


@given(few, st.sampled_from([0.01, 0.1, 1.0]), st.integers(0, 12))
def test_also_the_surest_far_around(values: list[float], bound: float, spacing: int) -> None:
    assert EntropyBound(bound, spacing).accept(torch.tensor(values)).tolist() == far_apart(values, bound, spacing)


def test_what_is_added_lies_so_far_apart() -> None:
    def added(spacing: int) -> Tensor:
        entropy = torch.rand(256, generator=torch.Generator().manual_seed(spacing)) + 0.2
        both = EntropyBound(0.1).accept(entropy), EntropyBound(0.1, spacing).accept(entropy)
        return (both[1] & ~both[0]).nonzero()[:, 0]

    for spacing in (2, 5, 12):
        places = added(spacing)
        assert len(places) > 256 // spacing // 4
        assert (places[1:] - places[:-1]).min() >= spacing
    assert len(added(0)) == 0
    assert len(added(1)) == 255  # all that the bound refuses
