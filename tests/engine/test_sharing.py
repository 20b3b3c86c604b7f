"""Passes that replies share: the same texts, fewer passes, and nobody in anybody's way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import tiny
import torch

from dgemma_cli.engine.events import BlockCommitted, Denoised, Event, Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.sharing import Sharing
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model

PROMPTS = [[3, 5, 7], list(range(2, 30)), [9] * 14, [4, 4, 8, 11, 2]]  # shorter and longer than the window


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny.random_model(eos_ids=frozenset({4}))


def options(seed: int, **more: object) -> Options:
    return Options(seed=seed, max_tokens=24, steps=5, entropy_bound=0.5, confidence=0.1, **more)  # type: ignore[arg-type]


def in_turns(replies: list[Iterator[Event]]) -> list[list[Event]]:
    """The events of each, one event at a time."""
    found: list[list[Event]] = [[] for _ in replies]
    going = list(range(len(replies)))
    while going:
        for index in list(going):
            event = next(replies[index], None)
            if event is None:
                going.remove(index)
            else:
                found[index].append(event)
    return found


def drafts(events: list[Event]) -> list[object]:
    """All but times, and entropies, of which the last digits hang on the company."""
    kept = [event for event in events if isinstance(event, Denoised | BlockCommitted)]
    return [replace(event, entropy=()) if isinstance(event, Denoised) else event for event in kept]


@pytest.mark.parametrize("most", [2, 3, 8])
def test_every_step_is_that_of_a_reply_alone(model: Model, most: int) -> None:
    sharing = Sharing(model, most)
    wanted = [options(seed, best_of=2 if seed == 2 else None) for seed in range(len(PROMPTS))]
    replies = [generate(model, ids, each, denoiser=sharing.denoise) for ids, each in zip(PROMPTS, wanted, strict=True)]
    for ids, each, events in zip(PROMPTS, wanted, in_turns(replies), strict=True):
        alone = list(generate(model, ids, each))
        assert drafts(events) == drafts(alone)
        assert [type(event) for event in events] == [type(event) for event in alone]


def test_a_pass_serves_all_that_have_asked(model: Model) -> None:
    sharing = Sharing(model, 8)
    plain = options(1, stability=9)  # no canvas stops by itself: all go in step
    steps = 0
    for events in in_turns([generate(model, ids, plain, denoiser=sharing.denoise) for ids in PROMPTS[:2] * 2]):
        assert isinstance(events[-1], Finished)
        steps += events[-1].statistics.steps
    assert sharing.passes < steps / 2
    alone = Sharing(model, 8)
    (events,) = in_turns([generate(model, PROMPTS[0], plain, denoiser=alone.denoise)])
    assert isinstance(events[-1], Finished)
    assert alone.passes == events[-1].statistics.steps


def test_who_has_left_is_computed_for_no_more(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    sharing, sizes = Sharing(model, 8), []
    run = Model.denoise_apart

    def counted(self: Model, canvases: torch.Tensor, *rest: object) -> torch.Tensor:
        sizes.append(len(canvases))
        return run(self, canvases, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "denoise_apart", counted)
    stays, leaves = (generate(model, PROMPTS[0], options(1), denoiser=sharing.denoise) for _ in range(2))
    for reply in (stays, leaves, stays, leaves, stays, leaves, stays, leaves):
        next(reply)
    assert 2 in sizes
    leaves.close()  # type: ignore[attr-defined]
    sizes.clear()
    list(stays)
    assert set(sizes) == {1}


def test_where_it_is_possible(model: Model) -> None:
    assert Sharing(model, 2).possible
    assert not Sharing(model, 1).possible
    tape = pytest.importorskip("tape")
    assert not Sharing(FusedModel(tiny.random_model(), PlainOperations(), tape.Tape(), chunk=16), 4).possible
