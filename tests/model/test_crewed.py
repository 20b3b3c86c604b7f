"""A model whose passes a crew computes gives what it gives alone."""

from __future__ import annotations

import pytest
import tiny
import torch

from dgemma_cli.engine.events import BlockCommitted
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.kernels.crew import Crew
from dgemma_cli.model import model as module
from dgemma_cli.model.model import Model

IDS = torch.arange(41) % 35 + 2


@pytest.fixture(scope="module")
def crew() -> Crew:
    return Crew(3, 1)  # which divides neither the canvas of 8 nor the heads


def pair(monkeypatch: pytest.MonkeyPatch, crew: Crew) -> tuple[Model, Model]:
    monkeypatch.setattr(module, "crew", lambda: crew)
    alone, crewed = tiny.random_model(), tiny.random_model()
    crewed.crewed = True
    return alone, crewed


def logits(model: Model, batch: int) -> list[torch.Tensor]:
    """Of a first step, a conditioned one and one of the next block."""
    cache = model.new_cache()
    model.encode(IDS, cache)
    canvases = (torch.arange(batch * 8).view(batch, 8) * 5) % 37
    first = model.denoise(canvases, cache, None)
    soft = model.soft_embedding(first)
    second = model.denoise(canvases.flip(1), cache, soft)
    model.encode(canvases[0], cache)
    return [first, second, model.denoise(canvases, cache, soft)]


@pytest.mark.parametrize("batch", [1, 2])
def test_same_logits(monkeypatch: pytest.MonkeyPatch, crew: Crew, batch: int) -> None:
    alone, crewed = pair(monkeypatch, crew)
    for expected, found in zip(logits(alone, batch), logits(crewed, batch), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_same_text(monkeypatch: pytest.MonkeyPatch, crew: Crew) -> None:
    def text(model: Model) -> list[int]:
        events = generate(model, IDS.tolist(), Options(max_tokens=20, seed=3))
        return [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]

    alone, crewed = pair(monkeypatch, crew)
    assert text(crewed) == text(alone) == text(crewed)


def test_uncrewed_for_a_while(monkeypatch: pytest.MonkeyPatch, crew: Crew) -> None:
    _, crewed = pair(monkeypatch, crew)
    with crewed.uncrewed():
        assert not crewed.crewed
    assert crewed.crewed
