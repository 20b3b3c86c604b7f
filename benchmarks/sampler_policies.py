"""What a canvas may be denoised by: the presets, and what was tried beside them and not taken."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from dgemma_cli.engine.denoise import Canvas, Denoiser, Task, denoise
from dgemma_cli.engine.events import Denoised
from dgemma_cli.model.model import Model
from dgemma_cli.sampling.acceptance import Acceptance
from dgemma_cli.sampling.presets import PRESETS, Preset


@dataclass(frozen=True, slots=True)
class Policy:
    """A preset, options laid on it, and what the package does not have."""

    preset: str | Preset
    options: dict[str, Any] = field(default_factory=dict)
    denoiser: Denoiser | None = None


@dataclass(frozen=True, slots=True)
class Likely:
    """Accept what is likelier than ``threshold``, and the likeliest in any case."""

    threshold: float

    def accept(self, entropy: Tensor, probabilities: Tensor) -> Tensor:
        return _over(probabilities.amax(-1), self.threshold)


@dataclass(frozen=True, slots=True)
class Margin:
    """Accept where the likeliest id leads the second by ``threshold``, and the farthest lead in any case."""

    threshold: float

    def accept(self, entropy: Tensor, probabilities: Tensor) -> Tensor:
        first, second = probabilities.topk(2, dim=-1).values.unbind(-1)
        return _over(first - second, self.threshold)


def _over(score: Tensor, threshold: float) -> Tensor:
    accepted = score > threshold
    accepted[score.argmax()] = True
    return accepted


def accepting(acceptance: Acceptance) -> Denoiser:
    """The plain loop with another acceptance."""
    return lambda task: denoise(replace(task, sampler=replace(task.sampler, acceptance=acceptance)))


class _FewIds:
    """A model whose self-conditioning sees the ``count`` likeliest ids of each position only."""

    def __init__(self, model: Model, count: int) -> None:
        self._model = model
        self._count = count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def expected_embedding(self, probabilities: Tensor) -> Tensor:
        most = probabilities.topk(self._count, dim=-1)
        kept = torch.zeros_like(probabilities).scatter(-1, most.indices, most.values)
        return self._model.expected_embedding(kept / kept.sum(-1, keepdim=True))


def softened_by(count: int) -> Denoiser:
    """The plain loop with a truncated self-conditioning."""
    return lambda task: denoise(replace(task, model=_FewIds(task.model, count)))


def voting(count: int) -> Denoiser:
    """The plain loop; at the cap each position takes what most of the last ``count`` drafts say."""

    def run(task: Task) -> Generator[Denoised, None, Canvas]:
        drafts: list[Tensor] = []
        steps = denoise(replace(task, report=True))
        while True:
            try:
                event = next(steps)
            except StopIteration as end:
                canvas: Canvas = end.value
                return canvas if canvas.converged else replace(canvas, draft=majority(torch.stack(drafts[-count:])))
            drafts.append(torch.tensor(event.canvas))
            if task.report:
                yield event

    return run


def majority(drafts: Tensor) -> Tensor:
    """For each position the id most of the drafts have, int64 [n, C] -> [C]; of equals the one that came last."""
    votes = (drafts[:, None] == drafts[None]).sum(1)  # [n, C]: how many drafts agree with each
    latest = votes * len(drafts) + torch.arange(len(drafts))[:, None]
    return drafts.gather(0, latest.argmax(0, keepdim=True))[0]


POLICIES: dict[str, Policy] = {name: Policy(name) for name in PRESETS}


def _sure(nats: float, horizon: int, **others: Any) -> Preset:
    return Preset(settled_reply=True, sure=nats, horizon=horizon, **others)


_BALANCED = Policy("balanced")


def _balanced(denoiser: Denoiser) -> Policy:
    return replace(_BALANCED, denoiser=denoiser)


CANDIDATES: dict[str, Policy] = {
    # How sure is sure, and over how many steps it cools.
    "settled reply alone": Policy(Preset(settled_reply=True, horizon=48)),
    "sure 0.2, horizon 4": Policy(_sure(0.2, 4)),
    "sure 0.2, horizon 16": Policy(_sure(0.2, 16)),
    "sure 0.5, horizon 1": Policy(_sure(0.5, 1)),
    "sure 0.8, horizon 1": Policy(_sure(0.8, 1)),
    "sure 0.5, horizon 8": Policy(_sure(0.5, 8)),
    "sure 0.5, horizon 16": Policy(_sure(0.5, 16)),
    "sure 2, horizon 1": Policy(_sure(2.0, 1)),
    # What is accepted.
    "sure 0.2, no spacing": Policy(_sure(0.2, 48)),
    "sure 0.2, spacing 8": Policy(_sure(0.2, 48, spacing=8)),
    "sure 0.2, spacing 16": Policy(_sure(0.2, 48, spacing=16)),
    "sure 1.2, spacing 12": Policy(_sure(1.2, 48, spacing=12)),
    "balanced, bound 0.3": Policy("balanced", {"entropy_bound": 0.3}),
    "balanced, bound 1": Policy("balanced", {"entropy_bound": 1.0}),
    "balanced, likelier than 0.9": _balanced(accepting(Likely(0.9))),
    "balanced, likelier than 0.7": _balanced(accepting(Likely(0.7))),
    "balanced, margin 0.8": _balanced(accepting(Margin(0.8))),
    "balanced, margin 0.5": _balanced(accepting(Margin(0.5))),
    # What is told to the next step.
    "balanced, soft of 1 id": _balanced(softened_by(1)),
    "balanced, soft of 8 ids": _balanced(softened_by(8)),
    "balanced, soft of 64 ids": _balanced(softened_by(64)),
    # Several canvases.
    "reference, best of 2": Policy("reference", {"best_of": 2}),
    "reference, best of 4": Policy("reference", {"best_of": 4}),
    "balanced, best of 2": Policy("balanced", {"best_of": 2}),
}

# Where the cap is hit.
CAPPED: dict[str, Policy] = {
    f"{steps} steps{label}": Policy("reference", {"steps": steps, **options}, denoiser)
    for steps in (2, 3)
    for label, options, denoiser in (
        ("", {}, None),
        (", vote of 3", {}, voting(3)),
        (", repair", {"repair": True}, None),
    )
} | {
    "4 steps": Policy("reference", {"steps": 4}),
    "6 steps": Policy("reference", {"steps": 6}),
    "6 steps, vote of 5": Policy("reference", {"steps": 6}, voting(5)),
}
