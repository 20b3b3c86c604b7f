"""The clock around a generation: what is counted where, how often it is read, how many rounds run."""

from __future__ import annotations

import pytest
import tiny
from simulated import Clock, DelayedModel, Simulated, case, rows

from dgemma_cli.bench.prompts import Prompt
from dgemma_cli.bench.runner import Case, Plan, measure, rounds
from dgemma_cli.engine.generate import generate
from dgemma_cli.sampling.presets import PRESETS


def test_every_second_is_counted_where_it_belongs() -> None:
    clock = Clock()
    target = Simulated(clock, step=0.25, prefill=2.0, commit=0.5, blocks=3, steps=4)
    [[sample]] = rounds(target, [case()], Plan(1, warmup=0), clock)
    assert sample.prefill_seconds == 2.0
    assert [block.seconds for block in sample.blocks] == [1.0, 1.0, 1.0]
    assert [block.commit_seconds for block in sample.blocks] == [0.5, 0.5, 0.0]
    assert (sample.first_draft_seconds, sample.first_block_seconds) == (2.25, 3.0)
    assert sample.seconds == 2.0 + 3 * 1.0 + 3 * 0.5
    assert (sample.peak, len(sample.ids)) == (1000, 24)


def test_a_real_loop_over_a_delayed_model() -> None:
    clock = Clock()
    model = DelayedModel(clock, step=0.1, encode=0.7)
    [row] = rows(model.target(), clock, names="a", repetitions=2)
    assert row["ms_per_step"] == {"mean": pytest.approx(100), "sd": pytest.approx(0, abs=1e-6), "count": 2}
    assert row["first_draft_ms"]["mean"] == pytest.approx(800)
    assert row["first_block_ms"]["mean"] == pytest.approx(900)
    assert row["prefill_tokens_per_second"]["mean"] == pytest.approx(3 / 0.7)
    # Two blocks of two steps, the prompt and one commit.
    assert row["kept_tokens_per_second"]["mean"] == pytest.approx(12 / (0.7 * 2 + 4 * 0.1))
    assert row["steps_per_block"] == {"mean": 2.0, "min": 2, "max": 2, "at_cap": 0.0}
    assert row["tokens_per_forward"] == pytest.approx(13 / 5)
    assert (row["blocks"], row["steps"], row["tokens"], row["peak_memory_bytes"]) == (2, 4, 12, 5)


def test_the_clock_is_read_by_the_block_and_never_by_the_step() -> None:
    """So measuring costs nothing that can be seen: a read takes well under a microsecond, a block milliseconds."""
    for steps in (2, 200):
        clock = Clock()
        chosen = case()
        measure(Simulated(clock, blocks=6, steps=steps), chosen.prompt, chosen.options, clock)
        assert clock.reads == 3 + 2 * 6


def test_the_device_is_waited_for_before_a_block_begins() -> None:
    clock = Clock()
    target = Simulated(clock, blocks=3)
    chosen = case()
    measure(target, chosen.prompt, chosen.options, clock)
    assert target.waits == 1 + 3


def test_a_measured_run_copies_no_drafts() -> None:
    assert not case().options.drafts
    assert case(preset="fast").options.preset == "fast"


@pytest.mark.parametrize("steps", [1, 3])
def test_fixed_steps_never_stop_early(steps: int) -> None:
    """Not even where everything is sure and nothing changes from the first step on."""
    model = DelayedModel(Clock(), 0.1, 0.1)
    chosen = Case(Prompt("a", "test", ids=(5, 6)), None, 12, steps)
    events = list(generate(model, chosen.prompt.ids, chosen.options))
    counted = events[-1].statistics  # type: ignore[union-attr]
    assert counted.steps == steps * counted.blocks
    free = tiny.ScriptedModel([[3] * 8, [4] * 4 + [tiny.EOS] * 4])
    stopped = list(generate(free, [5, 6], case().options))[-1].statistics  # type: ignore[union-attr]
    assert stopped.steps == 2 * stopped.blocks


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_can_be_asked_for(preset: str) -> None:
    assert case(preset=preset).options.preset == preset


def test_warm_ups_do_not_count() -> None:
    clock = Clock()
    model = DelayedModel(clock, step=5.0, encode=0.0)

    def tell(what: str) -> None:
        if what.startswith("round"):
            model.step_seconds = 0.1

    found = rounds(model.target(), [case()], Plan(2, warmup=3), clock, tell)
    assert [block.seconds for samples in found for block in samples[0].blocks] == [pytest.approx(0.2)] * 4


def test_cases_take_turns() -> None:
    clock = Clock()
    target = Simulated(clock)
    asked: list[str] = []
    generate_ = target.generate

    def note(prompt: Prompt, options: object) -> object:
        asked.append(prompt.name)
        return generate_(prompt, options)  # type: ignore[arg-type]

    target.generate = note  # type: ignore[method-assign,assignment]
    rounds(target, [case("a"), case("b")], Plan(2, warmup=0), clock)
    assert asked == ["a", "a", "b", "b"] * 2  # each whole, and once more to its first draft


@pytest.mark.parametrize(("budget", "expected"), [(None, 5), (1000.0, 5), (8.0, 2), (0.1, 1)])
def test_no_round_begins_that_would_pass_the_minute(budget: float | None, expected: int) -> None:
    clock = Clock()
    target = Simulated(clock, step=0.25, prefill=0.0, commit=0.0, blocks=2, steps=4)  # 2 s, and 0.25 to the first draft
    assert len(rounds(target, [case()], Plan(5, warmup=1, budget=budget), clock)) == expected
