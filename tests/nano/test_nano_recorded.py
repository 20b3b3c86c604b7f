"""Nano's replies by the recorded loop, whose device is emulated, are those of the plain loop: every event, every id."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tape import Tape
from test_graphed import assert_same

import dgemma_cli
from dgemma_cli.engine.choice import choose
from dgemma_cli.engine.events import BlockCommitted, Finished
from dgemma_cli.engine.graphed import graphed
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.prompting.prompter import Message, Prompter
from dgemma_cli.weights.loader import load_model

NANO = Path(dgemma_cli.__file__).parent / "nano"
PROMPTS = (
    "What is the capital of France?",
    "Sort these words: Berlin, Oslo, Athens",
    "What is 12 plus 7?",
    "Write a poem.",
)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(NANO, "cpu", "float32")


@pytest.fixture(scope="module")
def fused(model: Model) -> FusedModel:
    return FusedModel(model, PlainOperations(), Tape())


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter.load(NANO)


@pytest.mark.parametrize("preset", ["reference", "quality", "balanced", "fast"])
def test_whole_replies(model: Model, fused: FusedModel, prompter: Prompter, preset: str) -> None:
    reasons = set()
    for prompt in PROMPTS[:3]:
        ids = prompter.encode([Message("user", prompt)])
        for seed in range(2):
            options = Options(preset=preset, seed=seed, max_tokens=160)
            assert choose(fused, options)[0] is graphed
            found = list(dgemma_cli.generate(fused, ids, options))
            assert_same(found, list(dgemma_cli.generate(model, ids, options)))
            assert isinstance(found[-1], Finished)
            reasons.add(found[-1].reason)
    assert "eos" in reasons  # replies that end by themselves


def test_several_blocks(model: Model, fused: FusedModel, prompter: Prompter, monkeypatch: pytest.MonkeyPatch) -> None:
    """No reply of nano's is longer than a canvas, so here none of its ids ends one."""
    endless = replace(model.defaults, eos_ids=frozenset())
    monkeypatch.setattr(model, "defaults", endless)
    recorded = FusedModel(model, PlainOperations(), Tape())
    for seed, prompt in enumerate(PROMPTS):
        ids = prompter.encode([Message("user", prompt)])
        options = Options(
            preset="reference", seed=seed, max_tokens=3 * model.config.canvas_length, guard=False, steps=6
        )
        found = list(dgemma_cli.generate(recorded, ids, options))
        assert_same(found, list(dgemma_cli.generate(model, ids, options)))
        assert isinstance(found[-1], Finished)
        assert found[-1].statistics.blocks == 3


def test_a_conversation(model: Model, fused: FusedModel, prompter: Prompter) -> None:
    recorded, plain = Session(fused), Session(model)
    said: list[Message] = []
    for seed, prompt in enumerate(PROMPTS, 4):  # with some seeds the last one, unsettled, makes much of rounding
        said.append(Message("user", prompt))
        ids = prompter.encode(said)
        found = list(recorded.reply(ids, Options(seed=seed)))
        assert_same(found, list(plain.reply(ids, Options(seed=seed))))
        written = [token for event in found if isinstance(event, BlockCommitted) for token in event.ids]
        said.append(Message("assistant", prompter.reply(written).answer))
