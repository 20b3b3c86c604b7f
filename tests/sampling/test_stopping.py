"""Stopping by what is kept: the reach, the EOS that flickers, the allowance of doubt."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dgemma_cli.sampling.stopping import Progress, SettledReply, StableAndConfident

EOS = 1
RULE = SettledReply(stability=1, confidence=0.005, sure=0.01)


def progress(draft: list[int], before: list[list[int]], entropy: list[float], room: int = 99) -> Progress:
    ids = torch.tensor(draft)
    return Progress(ids, [torch.tensor(ids) for ids in before], torch.tensor(entropy), ids == EOS, room)


def test_the_tail_behind_a_settled_eos_decides_nothing() -> None:
    found = progress([5, 6, EOS, 7, 8], [[5, 6, EOS, 9, 2]], [0.004, 0.004, 0.004, 6.0, 6.0])
    assert RULE.stop(found)
    assert not StableAndConfident(1, 0.005).stop(found)


def test_an_unsettled_eos_does_not_shorten_the_reach() -> None:
    """It was another token a step ago and is not sure: the text may yet go on."""
    found = progress([5, 6, EOS, 7, 8], [[5, 6, 3, 9, 2]], [0.0, 0.0, 0.02, 6.0, 6.0])
    assert RULE.reach(found) == 5
    assert not RULE.stop(found)


def test_a_sure_reply_needs_no_second_look() -> None:
    assert RULE.stop(progress([5, EOS, 7], [], [0.004, 0.004, 3.0]))
    assert not RULE.stop(progress([5, EOS, 7], [], [0.006, 0.006, 3.0]))
    assert not SettledReply(1, 0.005, 0.0).stop(progress([5, EOS, 7], [], [0.0, 0.0, 3.0]))


def test_the_allowance_is_that_of_a_whole_canvas() -> None:
    """0.005 nats for each of 5 positions, spent on the three that are kept."""
    assert RULE.stop(progress([5, 6, EOS, 7, 8], [[5, 6, EOS, 7, 8]], [0.010, 0.010, 0.004, 0.0, 0.0]))
    assert not RULE.stop(progress([5, 6, EOS, 7, 8], [[5, 6, EOS, 7, 8]], [0.012, 0.012, 0.004, 0.0, 0.0]))


def test_max_tokens_ends_the_reach() -> None:
    found = progress([5, 6, 7, 8, 9], [[5, 6, 2, 2, 2]], [0.0, 0.0, 4.0, 4.0, 4.0], room=2)
    assert RULE.reach(found) == 2
    assert RULE.stop(found)


drafts = st.lists(st.integers(0, 4), min_size=6, max_size=6)
nats = st.lists(st.sampled_from([0.0, 0.001, 0.004, 0.02, 1.0]), min_size=6, max_size=6)


@given(drafts, st.lists(drafts, max_size=3), nats, st.integers(1, 9), st.integers(0, 2))
def test_never_later_than_the_reference(
    draft: list[int], before: list[list[int]], entropy: list[float], room: int, stability: int
) -> None:
    """What satisfies the reference satisfies the kept part of it."""
    found = progress(draft, before, entropy, room)
    if StableAndConfident(stability, 0.005).stop(found):
        assert SettledReply(stability, 0.005, 0.0).stop(found)


@given(drafts, st.lists(drafts, min_size=1, max_size=3), nats, nats)
def test_what_lies_beyond_the_reach_does_not_matter(
    draft: list[int], before: list[list[int]], entropy: list[float], other: list[float]
) -> None:
    found = progress(draft, before, entropy)
    reach = RULE.reach(found)
    mixed: Tensor = torch.tensor(entropy[:reach] + other[reach:])
    changed = Progress(found.draft, found.before, mixed, found.is_eos, found.room)
    assert RULE.stop(found) == RULE.stop(changed)
