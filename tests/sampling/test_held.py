"""Held positions impose themselves on logits, so that all that is made of these holds them."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.sampling.acceptance import EntropyBound
from dgemma_cli.sampling.held import Held
from dgemma_cli.sampling.statistics import predict

LENGTH, VOCAB = 6, 11
EOS = torch.tensor([1, 4])
texts = st.dictionaries(st.integers(0, LENGTH - 1), st.integers(0, VOCAB - 1), min_size=1)


def held(text: dict[int, int], start: int = 0) -> Held:
    found = Held.of(text, start, LENGTH, EOS)
    assert found is not None
    return found


@given(texts, st.integers(0, 2**16), st.sampled_from([0.4, 0.8]))
def test_a_held_position_is_certain_and_others_are_as_they_were(
    text: dict[int, int], seed: int, temperature: float
) -> None:
    logits = torch.randn(LENGTH, VOCAB, generator=torch.Generator().manual_seed(seed)) * 8
    free = predict(logits.clone(), temperature)
    imposed = logits.clone()
    held(text).impose(imposed)
    found = predict(imposed, temperature)
    last = max(text)
    for position in range(LENGTH):
        if position in text:
            assert found.draft[position] == text[position]
            assert found.entropy[position] == 0
            assert torch.equal(found.probabilities[position], torch.eye(VOCAB)[text[position]])
        elif position > last:
            assert torch.equal(found.probabilities[position], free.probabilities[position])
        else:
            assert found.draft[position] not in EOS
            assert (found.probabilities[position, EOS] == 0).all()
            assert found.entropy[position].isfinite()


@given(texts, st.floats(1e-6, 5))
def test_held_positions_use_up_nothing_of_the_bound(text: dict[int, int], bound: float) -> None:
    """They are all accepted, and so is one of the others at least."""
    entropy = torch.linspace(0.5, 2, LENGTH)
    mask = held(text).mask
    entropy[mask] = 0
    accepted = EntropyBound(bound).accept(entropy)
    assert accepted[mask].all()
    assert accepted[~mask].any() or mask.all()


def test_what_concerns_a_canvas() -> None:
    text = {2: 7, 8: 9}
    first, second = held(text), held(text, LENGTH)
    assert first.mask.tolist() == [False, False, True, False, False, False]
    assert first.unending.all()  # text is given beyond this canvas
    assert second.mask.tolist() == [False, False, True, False, False, False]
    assert second.unending.tolist() == [True, True, False, False, False, False]
    assert second.place(torch.zeros(LENGTH, dtype=torch.int64)).tolist() == [0, 0, 9, 0, 0, 0]
    assert Held.of(text, 2 * LENGTH, LENGTH, EOS) is None
    assert Held.of({}, 0, LENGTH, EOS) is None
