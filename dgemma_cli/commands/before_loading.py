"""The judgement of ``dgemma check``, before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dgemma_cli.commands.memory_report import Report, Subject, judge
from dgemma_cli.engine.options import CONTEXT, Options
from dgemma_cli.fit import TRIVIAL, Fit
from dgemma_cli.machine import look
from dgemma_cli.memory import USUAL, Work
from dgemma_cli.sampling.presets import PRESETS, Preset
from dgemma_cli.weights.checkpoint import Checkpoint


@dataclass(frozen=True, slots=True)
class Length:
    """Tokens that there must be memory for: of a prompt, and of the answer to it in whole canvases."""

    prompt: int
    answer: int


def work_of(options: Options, goes_on: bool = False) -> Work:
    """What replies with these options take. goes_on: in a conversation."""
    preset = options.preset if isinstance(options.preset, Preset) else PRESETS[options.preset]
    canvases = options.best_of or preset.best_of
    return Work(canvases, goes_on=goes_on, plain=options.repair or bool(options.held))


def judge_before_loading(
    name: str,
    checkpoint: Checkpoint,
    device: str,
    dtype: str,
    fit: Fit,
    work: Work = USUAL,
    flags: tuple[str, ...] = ("--best-of",),
    length: Callable[[], Length] | None = None,
    context: int = CONTEXT,
) -> Report | None:
    """How the model is to be loaded on ``device`` ("auto" may be) in ``dtype``; None: as it is, and nothing was asked.
    flags: see ``judge``; length: of what is to be read and written, if that is known; context: tokens to have room for
    if it is not, of which a smaller model has as many as it has.

    Raises OutOfMemory or NoDevice, with what would help, if it does not fit. A device that is not there is left to
    whoever opens it.
    """
    stored = sum(each.size for each in checkpoint.stored.values())
    if isinstance(fit, str) and stored < TRIVIAL:
        return None
    machine = look(gpus_too=device != "cpu")
    if device not in ("auto", "cpu") and not machine.gpus:
        return None
    subject = Subject.here(name, checkpoint, "float32" if dtype == "float32" else "bfloat16")
    most, answer = checkpoint.config.max_context, 0
    if length is not None:
        known = length()
        answer = min(known.answer, most - known.prompt)
        context = known.prompt + answer
    report = judge(subject, machine, min(context, most), fit, device, work, flags, answer)
    if report.problem is not None:
        raise report.problem
    return report
