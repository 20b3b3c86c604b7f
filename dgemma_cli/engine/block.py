"""One block of a reply: a canvas denoised, mended where that was asked for, and cut to what is kept."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dgemma_cli.engine.denoise import Canvas, Denoiser, Task, denoise
from dgemma_cli.engine.events import Denoised, StopReason
from dgemma_cli.sampling.held import Held
from dgemma_cli.sampling.repetition import looping

_LEAST = 16  # tokens that make a loop, however short the canvas


@dataclass(frozen=True, slots=True)
class Block:
    """ids: the kept tokens; reason: why the reply ends with them, if it does; the rest as in BlockCommitted."""

    ids: list[int]
    reason: StopReason | None
    steps: int
    converged: bool
    settled: int
    repaired: int
    trimmed: int


def write(
    task: Task, denoiser: Denoiser, written: Sequence[int], repair: bool, guard: bool
) -> Generator[Denoised, None, Block]:
    """A block behind the reply's ids so far, ``written``.

    repair: denoise what did not settle, or only repeats itself, a second time. guard: cut a loop off that runs to the
    end of the block. A reply that ends by itself is left alone, and so is a block with held text in or behind it,
    whose place a cut would move.
    """
    guard = guard and task.held is None
    canvas = yield from denoiser(task)
    repaired = 0
    if repair:
        span = _to_repair(task, canvas, written, guard)
        repaired = int(span.sum())
        if repaired:
            canvas = yield from _again(task, canvas, span)
    ids, reason = _cut(canvas.draft.tolist(), task.model.defaults.eos_ids, task.room)
    settled = 0 if canvas.previous is None else int((canvas.draft == canvas.previous)[: len(ids)].sum())
    trimmed = 0
    if guard and reason != "eos":
        trimmed = min(_loop(written, ids, len(canvas.draft)), len(ids))
        if trimmed:
            ids, reason = ids[: len(ids) - trimmed], None
            settled = min(settled, len(ids))
    return Block(ids, reason, canvas.steps, canvas.converged, settled, repaired, trimmed)


def _to_repair(task: Task, canvas: Canvas, written: Sequence[int], guard: bool) -> Tensor:
    """Positions to denoise again, bool [C]: of what would be kept, an EOS with it, all that still changed at the cap,
    and the repetitions of a loop.
    """
    ids, reason = _cut(canvas.draft.tolist(), task.model.defaults.eos_ids, task.room)
    span = torch.zeros_like(canvas.draft, dtype=torch.bool)
    if not canvas.converged:
        span = span | True if canvas.previous is None else canvas.draft != canvas.previous
        span[len(ids) + (reason == "eos") :] = False
    if guard and reason != "eos":
        span[max(0, len(ids) - _loop(written, ids, len(span))) : len(ids)] = True
    return span if task.held is None else span & ~task.held.mask.to(span.device)


def _again(task: Task, canvas: Canvas, span: Tensor) -> Generator[Denoised, None, Canvas]:
    """Denoise the positions of ``span`` from fresh noise; what is kept besides is held, what lies behind it is free."""
    ids, reason = _cut(canvas.draft.tolist(), task.model.defaults.eos_ids, task.room)
    mask = ~span
    mask[len(ids) + (reason == "eos") :] = False
    given = (task.held or Held.nothing(len(mask), task.eos)).joined(mask, canvas.draft)
    # The plain loop: the others hold nothing.
    steps = denoise(replace(task, held=given))
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            mended: Canvas = end.value
            return replace(mended, steps=canvas.steps + mended.steps)
        yield replace(event, step=canvas.steps + event.step)


def _loop(written: Sequence[int], ids: Sequence[int], canvas: int) -> int:
    """Tokens at the end that only repeat what stands before them."""
    return looping([*written, *ids], least=max(_LEAST, canvas // 4))


def _cut(draft: list[int], eos_ids: frozenset[int], room: int) -> tuple[list[int], StopReason | None]:
    """The ids before the first EOS, ``room`` at the most, and why the reply ends here, if it does."""
    end = next((index for index, token in enumerate(draft) if token in eos_ids), None)
    if end is not None and end <= room:
        return draft[:end], "eos"
    return draft[:room], "length" if len(draft) >= room else None
