"""CUDA graphs: what they write is what the same kernels write one by one. Runs where there is a GPU only."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import gpu_weights
import pytest
import torch
from sync_guard import watched

from dgemma_cli.engine.denoise import denoise
from dgemma_cli.engine.events import BlockCommitted, Event
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.graphed import graphed
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.programs import Calls, Graphs

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def models(form: str) -> tuple[FusedModel, FusedModel]:
    """With graphs, and without; on the same weights."""
    from dgemma_cli.kernels.fast import FastOperations

    device = torch.device("cuda")
    sizes = replace(gpu_weights.TINY, max_context=12_000)
    plain = gpu_weights.random_model(sizes, form, device, torch.bfloat16)
    plain.defaults = replace(plain.defaults, eos_ids=frozenset({7, 8, 9}))
    return FusedModel(plain, FastOperations(), Graphs(device)), FusedModel(plain, FastOperations(), Calls())


def text(events: list[Event]) -> list[tuple[tuple[int, ...], int]]:
    return [(event.ids, event.steps) for event in events if isinstance(event, BlockCommitted)]


@pytest.mark.parametrize("form", ["bf16", "nvfp4"])
@pytest.mark.parametrize("preset", ["reference", "fast"])
def test_blocks_turns_and_growth(form: str, preset: str) -> None:
    recorded, called = models(form)
    sessions = Session(recorded), Session(called)
    ids = [5, 6, 7]
    for turn, more in enumerate((20, 3, 4200, 9)):  # the third turn outgrows the first buffers
        ids = [*ids, *range(10, 10 + more % 190), *[11] * (more // 190 * 190)]
        options = Options(preset=preset, seed=turn, max_tokens=60, steps=8, confidence=2.0, entropy_bound=3.0)
        for ahead in (0, 1):
            found = list(sessions[0].reply(ids, options, denoiser=partial(graphed, ahead=ahead)))
            assert text(found) == text(list(sessions[1].reply(ids, options)))


def test_the_loop_of_the_device_writes_what_the_plain_loop_writes() -> None:
    recorded, _ = models("bf16")
    same = 0
    for seed in range(6):
        options = Options(seed=seed, max_tokens=30, steps=6, confidence=2.0, entropy_bound=3.0)
        found = text(list(generate(recorded, [5, 6, 7], options)))
        same += found == text(list(generate(recorded, [5, 6, 7], options, denoiser=denoise)))
    assert same >= 5  # the two sum a row's probabilities in another order, so that a draw on an edge may differ


def test_a_block_does_not_synchronise() -> None:
    recorded, _ = models("bf16")

    options = Options(seed=0, max_tokens=8, steps=8, stability=100)
    list(generate(recorded, [5, 6, 7], options))  # recorded
    assert text(list(generate(recorded, [5, 6, 7], options, denoiser=watched)))
