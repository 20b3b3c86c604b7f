"""One canvas: from noise to a draft that may be committed."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dgemma_cli.engine.events import Denoised
from dgemma_cli.engine.sampler import Sampler
from dgemma_cli.model.cache import KVCache
from dgemma_cli.model.model import Model
from dgemma_cli.sampling.draws import Draws
from dgemma_cli.sampling.held import Held
from dgemma_cli.sampling.statistics import predict
from dgemma_cli.sampling.stopping import Progress


@dataclass(frozen=True, slots=True)
class Task:
    """A canvas to denoise behind the text in ``cache``, which is only read.

    block: its index in the reply; room: how many of its positions may be kept, at least 1; report: whether each step
    is to be told in a Denoised event; held: the text that is given, if any.
    """

    model: Model
    cache: KVCache
    sampler: Sampler
    draws: Draws
    block: int
    room: int
    report: bool
    held: Held | None = None


@dataclass(frozen=True, slots=True)
class Canvas:
    """A denoised canvas, before it is cut. draft: int64 [C]; previous: the draft one step earlier; converged: the
    stopping rule ended it, not the cap on the steps.
    """

    draft: Tensor
    previous: Tensor | None
    steps: int
    converged: bool


class Denoiser(Protocol):
    """A way to run the steps of a canvas. All of them give the same canvases for the same draws."""

    def __call__(self, task: Task) -> Generator[Denoised, None, Canvas]: ...


def denoise(task: Task) -> Generator[Denoised, None, Canvas]:
    """The plain loop, one call of the model a step: right on every device, and what others are tested against."""
    model, sampler, draws, held = task.model, task.sampler, task.draws, task.held
    canvas = draws.noise()
    if held is not None:
        canvas = held.place(canvas)
    eos = torch.tensor(sorted(model.defaults.eos_ids), dtype=torch.int64, device=model.device)
    soft: Tensor | None = None
    drafts: list[Tensor] = []
    for step in range(1, sampler.steps + 1):
        logits = model.denoise(canvas, task.cache, soft)  # [C, V]
        if held is not None:
            held.impose(logits)
        probabilities, entropy, draft = predict(logits, sampler.schedule.temperature(step))
        accepted = sampler.acceptance.accept(entropy)
        canvas = torch.where(accepted, draws.pick(probabilities), draws.noise())
        if held is not None:
            canvas = held.place(canvas)
        stop = sampler.stopping.stop(Progress(draft, drafts, entropy, torch.isin(draft, eos), task.room))
        previous = drafts[-1] if drafts else None
        drafts.append(draft)
        if task.report:
            yield _event(task.block, step, draft, accepted, entropy, previous)
        if stop or step == sampler.steps:
            return Canvas(draft, previous, step, stop)
        soft = model.expected_embedding(probabilities)
        del logits, probabilities  # two copies of [C, V] that the next pass can have
    raise AssertionError("a canvas takes at least one step")


def _event(
    block: int, step: int, draft: Tensor, accepted: Tensor, entropy: Tensor, previous: Tensor | None
) -> Denoised:
    changed = torch.ones_like(accepted) if previous is None else draft != previous
    return Denoised(
        block=block,
        step=step,
        canvas=tuple(draft.tolist()),
        accepted=tuple(accepted.tolist()),
        entropy=tuple(entropy.tolist()),
        changed=tuple(changed.tolist()),
    )
