"""Several canvases of one block side by side: each as if alone, the surest kept, one of them as before."""

from __future__ import annotations

import pytest
import tiny
import torch

from dgemma_cli import load
from dgemma_cli.engine.denoise import Canvas, Task, denoise
from dgemma_cli.engine.events import BlockCommitted, Denoised, Event
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.sampler import Sampler
from dgemma_cli.model.cache import KVCache
from dgemma_cli.model.model import Model
from dgemma_cli.sampling.draws import SeededDraws, seeds

PROMPT = torch.tensor([3, 5, 7, 9, 2, 4, 6, 8, 10, 12, 14, 16, 18])  # more than the window


def run(task: Task) -> tuple[Canvas, list[Denoised]]:
    """A canvas, and what was told on the way."""
    events = []
    steps = denoise(task)
    while True:
        try:
            events.append(next(steps))
        except StopIteration as end:
            return end.value, events


def test_canvases_of_one_block_are_each_as_if_alone() -> None:
    model = tiny.random_model()
    cache: KVCache = model.new_cache()
    model.encode(PROMPT, cache)
    generator = torch.Generator().manual_seed(0)
    canvases = torch.randint(37, (3, 8), generator=generator)
    softs = torch.randn(3, 8, 32, generator=generator)
    for soft in (None, softs):
        together = model.denoise(canvases, cache, soft)
        for index in range(3):
            alone = model.denoise(canvases[index], cache, None if soft is None else soft[index])
            torch.testing.assert_close(together[index], alone, rtol=1e-5, atol=1e-5)
        assert not torch.allclose(together[0], together[1])


def test_on_nano_each_draft_is_that_of_a_run_alone() -> None:
    """Four canvases in float32, every step of each: the products of a batch round otherwise, the tokens do not."""
    model = load("nano", dtype="float32")
    cache = model.new_cache()
    model.encode(PROMPT, cache)
    length, vocab = model.config.canvas_length, model.config.vocab_size
    canvases = torch.randint(vocab, (4, length), generator=torch.Generator().manual_seed(0))
    softs = None
    for _ in range(3):
        together = model.denoise(canvases, cache, softs)
        alone = [model.denoise(canvases[i], cache, None if softs is None else softs[i]) for i in range(4)]
        assert torch.equal(together.argmax(-1), torch.stack(alone).argmax(-1))
        torch.testing.assert_close(together, torch.stack(alone), rtol=1e-4, atol=1e-4)
        canvases, softs = together.argmax(-1), model.soft_embedding(together)


def attempts(model: Model, seed: int, count: int, options: Options) -> Task:
    cache = model.new_cache()
    model.encode(PROMPT, cache)
    draws = [SeededDraws(one, 8, 37, model.device) for one in seeds(seed, count)]
    return Task(model, cache, Sampler.resolve(options, model.defaults), draws, 0, 8, True)


@pytest.mark.parametrize("preset", ["reference", "fast"])
def test_the_surest_of_several_is_one_of_the_runs_alone(preset: str) -> None:
    """Token for token, and the surest by what it says of itself at its last step."""
    model = tiny.random_model(eos_ids=frozenset({1, 2, 3}))
    options = Options(preset=preset, steps=12, entropy_bound=2.0, confidence=0.3)
    others = 0
    for seed in range(8):
        whole = attempts(model, seed, 3, options)
        kept, events = run(whole)
        alone = []
        for one in seeds(seed, 3):
            task = attempts(model, one, 1, options)
            canvas, steps = run(task)
            ends = [index for index, token in enumerate(canvas.draft.tolist()) if token in (1, 2, 3)]
            doubt = sum(steps[-1].entropy[: ends[0] + 1 if ends else 8])
            alone.append((not canvas.converged, doubt, canvas))
        best = min(alone, key=lambda found: found[:2])[2]
        assert torch.equal(kept.draft, best.draft)
        assert kept.converged == best.converged
        assert kept.steps == max(canvas.steps for _, _, canvas in alone)
        assert events[-1].canvas == tuple(best.draft.tolist())
        others += best is not alone[0][2]
    assert others  # it is not always the first


def kept(events: list[Event]) -> list[int]:
    return [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]


def test_the_same_seed_writes_the_same_best() -> None:
    model = tiny.random_model()

    def reply(best_of: int) -> list[int]:
        options = Options(max_tokens=24, seed=7, best_of=best_of)
        return kept(list(generate(model, PROMPT.tolist(), options)))

    assert reply(3) == reply(3)
    assert reply(1) == kept(list(generate(model, PROMPT.tolist(), Options(max_tokens=24, seed=7))))
