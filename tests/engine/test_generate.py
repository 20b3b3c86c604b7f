"""The loop over canvases: order of events, cutting, counting, seeds."""

from __future__ import annotations

import itertools

import pytest
import tiny

from dgemma_cli.engine.events import BlockCommitted, BlockStarted, Denoised, Event, Finished, PromptEncoded
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError

PROMPT = [3, 5, 7]


def kept(events: list[Event]) -> list[int]:
    return [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]


def finish(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_blocks_follow_one_another_until_an_eos() -> None:
    model = tiny.ScriptedModel([list(range(2, 10)), [11, 12, tiny.EOS, 13, tiny.EOS, 14, 15, 16]])
    events = list(generate(model, PROMPT, Options(seed=0, preset="reference")))
    kinds = [type(event) for event in events]
    block = [BlockStarted, Denoised, Denoised, BlockCommitted]
    assert kinds == [PromptEncoded, *block, *block, Finished]
    assert kept(events) == [2, 3, 4, 5, 6, 7, 8, 9, 11, 12]
    assert model.encoded == [3, 8]  # the prompt and the first block; the last block is not encoded
    end = finish(events)
    assert end.reason == "eos"
    found = end.statistics
    assert (found.tokens, found.valid_tokens, found.blocks, found.steps) == (10, 11, 2, 4)
    assert found.tokens_per_forward == pytest.approx(11 / (4 + 2 - 1))
    assert found.effective_steps == pytest.approx((2 * 8 + 2 * 3) / 11)
    assert found.converged


@pytest.mark.parametrize(
    ("most", "expected", "reason"), [(5, 5, "length"), (8, 8, "length"), (10, 10, "eos"), (9, 9, "length")]
)
def test_max_tokens_cuts(most: int, expected: int, reason: str) -> None:
    model = tiny.ScriptedModel([list(range(2, 10)), [11, 12, tiny.EOS, 13, 13, 14, 15, 16]])
    events = list(generate(model, PROMPT, Options(max_tokens=most, seed=0)))
    assert len(kept(events)) == expected
    assert finish(events).reason == reason


def test_an_eos_at_the_very_start_is_an_empty_reply() -> None:
    model = tiny.ScriptedModel([[tiny.EOS] * 8])
    events = list(generate(model, PROMPT, Options(seed=0)))
    assert kept(events) == []
    assert finish(events).reason == "eos"


def test_the_context_ends_a_reply() -> None:
    model = tiny.random_model(context=29)
    events = list(generate(model, PROMPT, Options(seed=0)))  # 3 + 8 + 8 + 8 fit, a fourth canvas does not
    assert finish(events).reason == "context"
    assert finish(events).statistics.blocks == 3


def test_a_prompt_that_leaves_no_room_is_refused() -> None:
    model = tiny.random_model(context=16)
    with pytest.raises(UsageError, match="context of 16"):
        list(generate(model, list(range(9)), Options()))
    with pytest.raises(UsageError, match="empty"):
        list(generate(model, [], Options()))


def test_the_same_seed_writes_the_same_text_with_and_without_drafts() -> None:
    model = tiny.random_model()

    def run(seed: int, drafts: bool) -> list[int]:
        return kept(list(generate(model, PROMPT, Options(max_tokens=40, seed=seed, drafts=drafts))))

    assert run(7, True) == run(7, False)
    assert run(7, True) != run(8, True)
    seedless = list(generate(model, PROMPT, Options(max_tokens=40)))
    assert kept(seedless) == run(finish(seedless).statistics.seed, False)


def test_a_cap_that_is_hit_is_told() -> None:
    model = tiny.random_model()
    events = list(generate(model, PROMPT, Options(max_tokens=8, steps=1, seed=0)))
    committed = next(event for event in events if isinstance(event, BlockCommitted))
    assert (committed.steps, committed.converged, committed.settled) == (1, False, 0)
    assert not finish(events).statistics.converged


def test_steps_events_say_what_changed() -> None:
    model = tiny.random_model()
    steps = [event for event in generate(model, PROMPT, Options(max_tokens=8, seed=0)) if isinstance(event, Denoised)]
    assert [step.step for step in steps] == list(range(1, len(steps) + 1))
    assert all(steps[0].changed)
    for before, after in itertools.pairwise(steps):
        assert after.changed == tuple(a != b for a, b in zip(before.canvas, after.canvas, strict=True))
        assert any(after.accepted)


def test_a_cache_is_continued() -> None:
    """The second turn of a chat encodes what is new and writes what a fresh encode would write."""
    model = tiny.random_model()
    cache = model.new_cache()
    list(generate(model, PROMPT, Options(max_tokens=8, seed=0), cache))
    assert cache.length == 3  # the last block is left to the next turn
    longer = [*PROMPT, 9, 11, 13, 2, 4]
    warm = list(generate(model, longer, Options(max_tokens=24, seed=1), cache))
    cold = list(generate(model, longer, Options(max_tokens=24, seed=1)))
    assert kept(warm) == kept(cold)
    assert isinstance(warm[0], PromptEncoded)
    assert (warm[0].tokens, warm[0].cached) == (8, 3)


def test_options_that_contradict_each_other() -> None:
    model = tiny.random_model()
    with pytest.raises(UsageError, match="t-max"):
        list(generate(model, PROMPT, Options(t_min=0.9)))
    for bad in (
        {"steps": 0},
        {"max_tokens": 0},
        {"entropy_bound": 0.0},
        {"seed": -1},
        {"confidence": float("nan")},
        {"preset": "quick"},
    ):
        with pytest.raises(UsageError):
            Options(**bad)  # type: ignore[arg-type]
