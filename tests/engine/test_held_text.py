"""Held text through a whole generation: in every canvas, in the self-conditioning, in every draft, in the reply."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgemma_cli.engine.events import BlockCommitted, Denoised, Event, Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError
from dgemma_cli.model.cache import KVCache
from dgemma_cli.model.model import Model

PROMPT = [3, 5, 7]
LENGTH = 8
MODEL = tiny.random_model(eos_ids=frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9}))  # ends early wherever it may


class Watched(Model):
    """Notes what it is asked to denoise."""

    def __init__(self, model: Model) -> None:
        super().__init__(model.config)
        self.load_state_dict(model.state_dict())
        self.requires_grad_(False)
        self.defaults = model.defaults
        self.seen: list[tuple[int, torch.Tensor, torch.Tensor | None]] = []

    def denoise(self, canvas: torch.Tensor, cache: KVCache, soft: torch.Tensor | None) -> torch.Tensor:
        self.seen.append((cache.length - len(PROMPT), canvas[0], None if soft is None else soft[0]))
        return super().denoise(canvas, cache, soft)


texts = st.dictionaries(st.integers(0, 2 * LENGTH - 1), st.integers(10, 36), min_size=1, max_size=8)


@settings(max_examples=30, deadline=None)
@given(texts, st.sampled_from(["reference", "fast"]), st.integers(1, 4), st.integers(0, 999))
def test_held_text_never_moves(text: dict[int, int], preset: str, steps: int, seed: int) -> None:
    model = Watched(MODEL)
    events: list[Event] = list(
        generate(model, PROMPT, Options(max_tokens=24, seed=seed, preset=preset, steps=steps, held=text))
    )
    reply = [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]
    assert {position: reply[position] for position in text} == text
    for event in events:
        if isinstance(event, Denoised):
            for position, token in text.items():
                if position // LENGTH == event.block:
                    assert event.canvas[position % LENGTH] == token
                    assert event.accepted[position % LENGTH]
                    assert event.entropy[position % LENGTH] == 0
    for start, canvas, soft in model.seen:
        for position, token in text.items():
            if start <= position < start + LENGTH:
                assert canvas[position - start] == token
                if soft is not None:
                    known = model.expected_embedding(torch.eye(37)[token])
                    torch.testing.assert_close(soft[position - start], known)


def test_a_held_end_ends_the_reply_there_or_before() -> None:
    for seed in range(5):
        events = list(generate(MODEL, PROMPT, Options(max_tokens=20, seed=seed, held={11: 1, 10: 30})))
        reply = [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]
        assert len(reply) == 11
        assert reply[10] == 30
        assert isinstance(events[-1], Finished) and events[-1].reason == "eos"


@pytest.mark.parametrize(
    ("held", "most", "why"),
    [
        ({20: 30}, 20, "max-tokens"),
        ({21: 1}, 20, "max-tokens"),
        ({253: 30}, 999, "context"),
        ({3: 37}, 20, "vocabulary"),
        ({3: 1, 4: 30}, 20, "end at position 3"),
        ({-1: 3}, 20, "at least 0"),
    ],
)
def test_what_cannot_be_held_is_refused(held: dict[int, int], most: int, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        list(generate(MODEL, PROMPT, Options(max_tokens=most, held=held)))


def test_an_end_held_right_behind_the_last_token_allowed() -> None:
    events = list(generate(MODEL, PROMPT, Options(max_tokens=16, seed=0, held={16: 1})))
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.statistics.tokens == 16
