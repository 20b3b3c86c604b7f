"""One canvas: from noise to a draft that may be committed."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
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

    draws: one a canvas denoised side by side, of which the surest is kept. block: its index in the reply; room: how
    many of its positions may be kept, at least 1; report: whether each step is to be told in a Denoised event; held:
    the text that is given, if any.
    """

    model: Model
    cache: KVCache
    sampler: Sampler
    draws: Sequence[Draws]
    block: int
    room: int
    report: bool
    held: Held | None = None

    @property
    def eos(self) -> Tensor:
        """The ids that end a reply, int64 [E]."""
        return torch.tensor(sorted(self.model.defaults.eos_ids), dtype=torch.int64, device=self.model.device)


@dataclass(frozen=True, slots=True)
class Canvas:
    """A denoised canvas, before it is cut. draft: int64 [C]; previous: the draft one step earlier; steps: passes of
    the model; converged: the stopping rule ended it, not the cap on the steps.
    """

    draft: Tensor
    previous: Tensor | None
    steps: int
    converged: bool


class Denoiser(Protocol):
    """A way to run the steps of a canvas. All of them give the same canvases for the same draws."""

    def __call__(self, task: Task) -> Generator[Denoised, None, Canvas]: ...


class Ask(Protocol):
    """Says what the next pass of a task is over: canvases int64 [B, C], softs [B, C, hidden] or None on the first step.
    Calling what comes back gives its logits [B, C, V], once; when they are computed is left open.
    """

    def __call__(self, task: Task, canvases: Tensor, softs: Tensor | None) -> Callable[[], Tensor]: ...


def alone(task: Task, canvases: Tensor, softs: Tensor | None) -> Callable[[], Tensor]:
    """A pass of one's own, computed when its logits are wanted."""
    return lambda: task.model.denoise(canvases, task.cache, softs)


def denoise(task: Task, ask: Ask = alone) -> Generator[Denoised, None, Canvas]:
    """The plain loop, one pass a step: right on every device, and what others are tested against.

    Canvases side by side are independent of each other; each stops by itself. The one to keep is the one with the
    least doubt about what it would commit, one that converged before one that did not. A step is told when the next
    one has been asked for, so that ``ask`` may put passes of several tasks together.
    """
    attempts = going = [_Attempt(task, draws) for draws in task.draws]
    logits = _asked(ask, task, going)
    shown: Tensor | None = None
    for step in range(1, task.sampler.steps + 1):
        _advance(going, logits, step)
        going = [attempt for attempt in attempts if not attempt.converged]
        last = not going or step == task.sampler.steps
        if not last:
            logits = _asked(ask, task, going)
        best = min(attempts, key=_Attempt.rank) if len(attempts) > 1 else attempts[0]
        if task.report:
            yield _event(task.block, step, best.drafts[-1], best.accepted, best.progress.entropy, shown)
            shown = best.drafts[-1]
        if last:
            break
    previous = best.drafts[-2] if len(best.drafts) > 1 else None
    return Canvas(best.drafts[-1], previous, step, best.converged)


class _Attempt:
    """One canvas on its way. After a step: what is accepted and where it stands."""

    def __init__(self, task: Task, draws: Draws) -> None:
        self._task = task
        self._draws = draws
        self._eos = task.eos
        self.canvas = self._place(draws.noise())
        self.soft: Tensor | None = None
        self.drafts: list[Tensor] = []
        self.accepted: Tensor
        self.progress: Progress
        self.converged = False

    def advance(self, logits: Tensor, step: int) -> None:
        """Take in the logits [C, V] of a pass, which are overwritten."""
        sampler, held = self._task.sampler, self._task.held
        if held is not None:
            held.impose(logits)
        model = self._task.model
        probabilities, entropy, draft = model.together(predict, logits, sampler.schedule.temperature(step))
        self.accepted = sampler.acceptance.accept(entropy, probabilities)
        self.canvas = self._place(torch.where(self.accepted, self._draws.pick(probabilities), self._draws.noise()))
        self.progress = Progress(draft, self.drafts, entropy, torch.isin(draft, self._eos), self._task.room)
        self.converged = sampler.stopping.stop(self.progress)
        self.drafts.append(draft)
        if not self.converged and step < sampler.steps:
            self.soft = model.together(model.expected_embedding, probabilities)

    def rank(self) -> tuple[bool, float]:
        """Smaller is better."""
        return not self.converged, self.progress.doubt()

    def _place(self, canvas: Tensor) -> Tensor:
        return canvas if self._task.held is None else self._task.held.place(canvas)


def _asked(ask: Ask, task: Task, attempts: Sequence[_Attempt]) -> Callable[[], Tensor]:
    canvases = torch.stack([attempt.canvas for attempt in attempts])
    softs = [attempt.soft for attempt in attempts if attempt.soft is not None]
    return ask(task, canvases, torch.stack(softs) if softs else None)


def _advance(attempts: Sequence[_Attempt], logits: Callable[[], Tensor], step: int) -> None:
    """Take in one pass over the canvases that go on. Its logits and probabilities, [C, V] each, end with it."""
    for attempt, own in zip(attempts, logits(), strict=True):
        attempt.advance(own, step)


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
