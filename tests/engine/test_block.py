"""What becomes of a block that did not settle, or that runs in a loop."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tiny
import torch
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.engine.events import BlockCommitted, BlockStarted, Denoised, Event, Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.model.cache import KVCache
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.model.model import Model

PROMPT = [3, 5, 7]
LENGTH = 32


class Told(Model):
    """Drafts what ``tell`` says, of the number of the pass (from 0) and the text encoded behind the prompt."""

    def __init__(self, tell: Callable[[int, int], list[int]]) -> None:
        super().__init__(tiny.config(canvas=LENGTH))
        self.requires_grad_(False)
        self.defaults = GenerationDefaults(steps=4, eos_ids=frozenset({tiny.EOS}))
        self.tell = tell
        self.passes = 0
        self.canvases: list[list[int]] = []

    def denoise(self, canvas: torch.Tensor, cache: KVCache, soft: torch.Tensor | None) -> torch.Tensor:
        draft = self.tell(self.passes, cache.length - len(PROMPT))
        self.passes += 1
        self.canvases.append(canvas.flatten().tolist())
        logits = torch.full((*canvas.shape, self.config.vocab_size), -30.0)
        return logits.scatter_(-1, torch.tensor(draft).expand(canvas.shape)[..., None], 30.0)


def run(model: Model, **options: object) -> tuple[list[int], list[BlockCommitted], Finished, list[Event]]:
    events = list(generate(model, PROMPT, Options(seed=0, max_tokens=200, **options)))  # type: ignore[arg-type]
    blocks = [event for event in events if isinstance(event, BlockCommitted)]
    end = events[-1]
    assert isinstance(end, Finished)
    return [token for block in blocks for token in block.ids], blocks, end, events


START = list(range(10, 20))
ENDING = [20, 21, 22, tiny.EOS, *[0] * (LENGTH - 4)]


def test_a_loop_is_cut_off_and_the_text_goes_on_behind_the_cut() -> None:
    model = Told(lambda _, behind: [*START, *[25, 26] * 11] if behind == 0 else ENDING)
    reply, blocks, end, _ = run(model)
    assert reply == [*START, 25, 26, 20, 21, 22]
    assert [block.trimmed for block in blocks] == [20, 0]
    assert (end.reason, end.statistics.trimmed, end.statistics.tokens) == ("eos", 20, 15)


def test_a_loop_that_comes_back_ends_the_reply() -> None:
    model = Told(lambda _, behind: [*START, *[25] * 22] if behind == 0 else [25] * LENGTH)
    reply, blocks, end, _ = run(model)
    assert reply == [*START, 25]
    assert [block.trimmed for block in blocks] == [21, LENGTH]
    assert end.reason == "repetition"


def test_a_loop_across_blocks_is_seen() -> None:
    model = Told(lambda _, behind: [*range(2, 29), *[30] * 5] if behind == 0 else [30] * LENGTH)
    reply, blocks, _, _ = run(model)
    assert reply == [*range(2, 29), *[30] * 5]
    assert [block.trimmed for block in blocks] == [0, LENGTH, LENGTH]


@pytest.mark.parametrize("text", [[*START, *[25] * 21, tiny.EOS], [*START, *[25] * 21, 26]])
def test_repetition_that_ends_by_itself_is_left_alone(text: list[int]) -> None:
    reply, blocks, _, _ = run(Told(lambda _, behind: text if behind == 0 else ENDING))
    assert reply[:31] == text[:31]
    assert not any(block.trimmed for block in blocks)


def test_without_the_guard_and_with_held_text_a_loop_stays() -> None:
    def tell(_: int, behind: int) -> list[int]:
        return [*START, *[25] * 22] if behind == 0 else ENDING

    for options in ({"guard": False}, {"held": {LENGTH: 20}}):
        reply, blocks, _, _ = run(Told(tell), **options)
        assert reply == [*START, *[25] * 22, 20, 21, 22]
        assert not any(block.trimmed for block in blocks)


def test_max_tokens_counts_what_is_left_of_a_loop() -> None:
    model = Told(lambda _, behind: [*START, *[25] * 22] if behind == 0 else [*range(2, 34)])
    events = list(generate(model, PROMPT, Options(seed=0, max_tokens=30)))
    blocks = [event for event in events if isinstance(event, BlockCommitted)]
    assert [len(block.ids) for block in blocks] == [11, 19]
    assert [block.trimmed for block in blocks] == [19, 0]


def test_repair_denoises_again_what_still_changed() -> None:
    """Two positions flicker until the cap; then only they are noise again, and the rest is held."""

    def tell(number: int, _: int) -> list[int]:
        flicker = [30 + number % 2, 32 + number % 2] if number < 4 else [34, 35]
        others = 7 if number < 4 else 9  # the model would now write something else
        return [others, others, *flicker, 8, tiny.EOS, *[0] * (LENGTH - 6)]

    model = Told(tell)
    reply, (block,), end, events = run(model, repair=True, preset="reference")
    assert reply == [7, 7, 34, 35, 8]
    assert (block.repaired, block.converged, block.steps) == (2, True, 6)
    assert end.statistics.repaired == 2
    assert [event.step for event in events if isinstance(event, Denoised)] == [1, 2, 3, 4, 5, 6]
    assert all(event.cap == 8 for event in events if isinstance(event, BlockStarted))
    for canvas in model.canvases[4:]:
        assert (canvas[:2], canvas[4:6]) == ([7, 7], [8, tiny.EOS])
    assert len({tuple(canvas[2:4]) for canvas in model.canvases}) > 2  # noise

    reply, (block,), _, _ = run(Told(tell), preset="reference")
    assert (reply, block.repaired, block.converged) == ([7, 7, 31, 33, 8], 0, False)


def test_repair_of_a_loop_writes_another_end() -> None:
    """What is left of it is trimmed."""

    def tell(number: int, _: int) -> list[int]:
        return [*START, *[25] * 22] if number < 2 else [*range(2, 12), 25, 27, 28, tiny.EOS, *[0] * 18]

    reply, (block,), _, _ = run(Told(tell), repair=True, preset="reference")
    assert reply == [*START, 25, 27, 28]
    assert (block.repaired, block.trimmed) == (21, 0)


def test_a_settled_block_is_not_repaired() -> None:
    model = Told(lambda _, behind: ENDING)
    _, (block,), _, _ = run(model, repair=True, preset="reference")
    assert (block.repaired, block.steps) == (0, 2)


def test_a_conversation_s_cache_holds_what_is_left() -> None:
    """The next turn finds the trimmed text in the cache, and nothing of what was cut off."""
    model = Told(lambda _, behind: [*START, *[25] * 22] if behind == 0 else ENDING)
    session = Session(model)
    list(session.reply(PROMPT, Options(seed=0)))
    assert session.encoded == [*PROMPT, *START, 25]


@given(st.lists(st.lists(st.integers(0, 4), min_size=8, max_size=8), min_size=3, max_size=3), st.integers(1, 30))
def test_nothing_behind_an_eos_and_no_more_than_asked_for(script: list[list[int]], most: int) -> None:
    model = tiny.ScriptedModel([*script, [tiny.EOS] * 8])
    events = list(generate(model, PROMPT, Options(seed=0, max_tokens=most, guard=False)))
    reply = [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]
    text = [token for block in script for token in block] + [tiny.EOS]
    whole = text[: text.index(tiny.EOS)]
    assert reply == whole[:most]
    end = events[-1]
    assert isinstance(end, Finished)
    assert end.reason == ("length" if len(whole) > most or (len(whole) == most and most % 8 == 0) else "eos")
