"""How far a model on kernels of its own is from plain torch on the same weights and the same device.

A kernel may be right in tests and wrong on a card, for a driver's or a compiler's reasons. So what it computes there
can be held against torch: the network, what is read off the logits, what is decided by that, and the recorded steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from dgemma_cli.engine.denoise import Task
from dgemma_cli.engine.events import Denoised
from dgemma_cli.engine.graphed import graphed
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.sampler import Sampler
from dgemma_cli.kernels.operations import Operations
from dgemma_cli.kernels.placing import on
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls
from dgemma_cli.sampling.draws import SeededDraws, pick_by_inverse_cdf
from dgemma_cli.sampling.rules import Rules, settings
from dgemma_cli.sampling.statistics import predict

# Two ways to round to bfloat16 lie 0.02 to 0.05 apart after 30 layers; rows that are computed wrongly, 0.5 and more.
LIMIT = 0.15
_GROUP = 16  # neighbouring positions: the least that a kernel's tile holds
_BEHIND = 70  # tokens of the prompt beyond the window
_ROWS = 8  # at either end of the canvas, whose logits are looked at
_NATS = 0.05
_AGREE = 0.75  # of ids drawn: one at the edge between two may fall to either side

Route = tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class Comparison:
    """network: the relative distance of the network's outputs, of the worst group of neighbouring positions;
    wrong: what is not as in plain torch, in words; None if all is.
    """

    network: float
    wrong: str | None


@torch.no_grad()
def compare(model: FusedModel) -> Comparison:
    """One pass of ``model`` beside one of the plain model it was made of; its logits, read by kernels and by torch.

    Raises whatever a compiler, a driver or the device raises.
    """
    with on(model.device):
        sample, decided = _sampling(model), _decisions(model)
        network, routes = _network(model)
    found = {
        f"the network's outputs differ by {network:.0%}": not network < LIMIT,
        f"tokens go to other experts, by {routes:.0%}": not routes < LIMIT,
        f"what is read off the logits differs in {sample}": sample is not None,
        "what is accepted differs": not decided,
    }
    return Comparison(network, next((words for words, so in found.items() if so), None))


@torch.no_grad()
def recorded_as_called(model: FusedModel) -> bool:
    """Whether recorded steps and commits do what the same work does when it is called. What was recorded is with the
    buffers that the next cache gets. Raises what a recording raises.
    """
    recorder = model.executor
    model.run_by(Calls())
    called = _canvases(model)
    model.run_by(recorder)
    recorded = _canvases(model)
    return all(
        mine.canvas == other.canvas and mine.accepted == other.accepted and _near(mine.entropy, other.entropy)
        for mine, other in zip(recorded, called, strict=True)
    )


def apart(mine: Tensor, theirs: Tensor) -> float:
    """The relative distance of rows [N, n], by their norms: the median of each group of neighbours, of the worst."""
    mine, theirs = mine.float(), theirs.float()
    distance = (mine - theirs).norm(dim=-1) / theirs.norm(dim=-1)
    if not bool(distance.isfinite().all()):
        return float("inf")
    return max(float(group.median()) for group in distance.split(_GROUP))


def _network(model: FusedModel) -> tuple[float, float]:
    """Of a self-conditioned pass behind a prompt longer than the window, and of the routing on the way to it.

    The fused pass is led to the experts that the plain one went to: where two are as good as tied, either may be right.
    """
    config, plain = model.config, model.origin
    length = min(config.sliding_window + _BEHIND, config.max_context - config.canvas_length)
    ids = _ids(model, length + config.canvas_length)
    text, canvas = ids[:length], ids[length:]
    generator = torch.Generator().manual_seed(1)
    soft = torch.randn(len(canvas), config.hidden_size, generator=generator).to(model.device, model.dtype)

    with plain.uncrewed():
        routes: list[Route] = []
        hooks = [
            _router(layer).register_forward_hook(lambda *call: routes.append(call[-1])) for layer in _layers(plain)
        ]
        try:
            expected = _pass(plain, text, canvas, soft, model.chunk)
        finally:
            for hook in hooks:
                hook.remove()
    led = _Led(model.operations, routes)
    found = _pass(FusedModel(plain, cast(Operations, led), Calls(), model.chunk), text, canvas, soft, model.chunk)
    return apart(found, expected), led.apart


def _pass(model: Model, text: Tensor, canvas: Tensor, soft: Tensor, chunk: int) -> Tensor:
    """Encode, so many tokens at once; then denoise. Returns the last hidden states of the canvas."""
    cache = model.new_cache()
    for some in text.split(chunk):
        model.encode(some, cache)
    return model.run_decoder(canvas[None], soft[None], _positions(model, cache.length, len(canvas)), cache)[0]


class _Led:
    """``Operations`` that go where another model's tokens went, and note how far from that they would have gone."""

    def __init__(self, operations: Operations, routes: Sequence[Route]) -> None:
        self._operations = operations
        self._routes: Iterator[Route] = iter(routes)
        self.apart = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._operations, name)

    def route(self, scores: Tensor, top_k: int, per_expert_scale: Tensor) -> Route:
        weights, experts = next(self._routes)
        mine = self._operations.route(scores, top_k, per_expert_scale)
        self.apart = max(self.apart, apart(_spread(mine, scores), _spread((weights, experts), scores)))
        return weights.to(mine[0].dtype), experts.to(mine[1].dtype)


def _spread(route: Route, scores: Tensor) -> Tensor:
    """The weight of every expert for each token, float32 [N, E]."""
    weights, experts = route
    return torch.zeros_like(scores, dtype=torch.float32).scatter_(1, experts.long(), weights.float())


def _sampling(model: FusedModel) -> str | None:
    """What is wrong with what a kernel reads off the logits; None if nothing is, or torch reads them."""
    if model.operations.sample is None:
        return None
    canvas, config = model.config.canvas_length, model.config
    generator = torch.Generator().manual_seed(2)
    # Not too flat: a hidden state near some rows of the embedding.
    near = model.embed_tokens(_ids(model, canvas)).float()
    noise = torch.randn(near.shape, generator=generator).to(near.device)
    hidden = (near / near.norm(dim=-1, keepdim=True) * config.hidden_size**0.5 + 0.3 * noise).to(model.dtype)
    uniform = torch.rand(canvas, generator=generator).to(model.device)
    temperature = torch.tensor([0.7], device=model.device)
    scores = model.scores(hidden)
    read = model.operations.sample(scores, config.logit_softcap, temperature, uniform)
    ends = torch.cat([torch.arange(canvas)[:_ROWS], torch.arange(canvas)[-_ROWS:]]).unique().to(model.device)
    cap = config.logit_softcap
    logits = scores[ends].float().div(cap).tanh().mul(cap)
    best = logits.amax(dim=-1)
    drafted = logits.gather(1, read.draft[ends, None])[:, 0]
    probabilities, entropy, _ = predict(logits, temperature)
    picked = pick_by_inverse_cdf(probabilities, uniform[ends, None])
    same = float((picked == read.picked[ends]).float().mean())
    parts = {
        "the drafts": bool((drafted == best).all()),
        "the entropies": _near(read.entropy[ends].tolist(), entropy.tolist()),
        "the probabilities": apart(read.probabilities[ends], probabilities) < LIMIT,
        "the draws": same >= _AGREE,
    }
    return next((name for name, right in parts.items() if not right), None)


def _decisions(model: FusedModel) -> bool:
    """Whether a kernel accepts, stops and renews the canvas as the rules do, in each of two steps."""
    advance = model.operations.advance
    if advance is None:
        return True
    sampler = Sampler.resolve(Options(preset="quality"), model.defaults)
    canvas, device = model.config.canvas_length, model.device
    numbers = torch.tensor(settings(sampler.acceptance, sampler.stopping, canvas // 2, canvas), device=device)
    mine, theirs = (Rules(numbers, canvas, sorted(model.defaults.eos_ids)) for _ in range(2))
    generator = torch.Generator().manual_seed(3)
    draft, picked, noise = (_ids(model, 3 * canvas)).split(canvas)
    found, right = picked.clone(), True
    for rules in (mine, theirs):
        rules.begin()
    for scale in (0.1, 0.001):  # a step that goes on, and one that may stop
        entropy = (torch.rand(canvas, generator=generator) * scale).to(device)
        accepted, stop = advance(
            mine.numbers, mine.eos, mine.previous, mine.unchanged, draft, entropy, picked, noise, found
        )
        expected = theirs.accept(entropy)
        right &= torch.equal(accepted, expected) and torch.equal(found, torch.where(expected, picked, noise))
        right &= bool(stop) == bool(theirs.stop(draft, entropy))
    return right


def _canvases(model: FusedModel) -> list[Denoised]:
    """Two canvases of two steps each, with a commit behind each."""
    config = model.config
    told: list[Denoised] = []
    cache = model.new_cache()
    ids = _ids(model, 3 + config.canvas_length)
    model.encode(ids[:3], cache)
    sampler = replace(Sampler.resolve(Options(steps=2), model.defaults), steps=2)
    for block in range(2):
        draws = SeededDraws(block, config.canvas_length, config.vocab_size, model.device)
        told += list(graphed(Task(model, cache, sampler, [draws], block, config.canvas_length, True)))
        model.encode(ids[3:], cache)
    return told


def _ids(model: Model, count: int) -> Tensor:
    """Random ones, always the same."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, model.config.vocab_size, (count,), generator=generator).to(model.device)


def _positions(model: Model, first: int, count: int) -> Tensor:
    return torch.arange(first, first + count, device=model.device)[None]


def _near(mine: Sequence[float], theirs: Sequence[float]) -> bool:
    return all(abs(one - other) <= _NATS for one, other in zip(mine, theirs, strict=True))


def _layers(model: Model) -> list[nn.Module]:
    return list(model.stack.layers)


def _router(layer: nn.Module) -> nn.Module:
    return layer.get_submodule("router")
