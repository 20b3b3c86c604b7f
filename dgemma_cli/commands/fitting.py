"""The judgement of ``dgemma check``, before a model is loaded."""

from __future__ import annotations

from dgemma_cli.commands.judging import Report, Subject, judge
from dgemma_cli.engine.options import CONTEXT, Options
from dgemma_cli.fit import TRIVIAL, Fit
from dgemma_cli.machine import look
from dgemma_cli.memory import USUAL, Work
from dgemma_cli.sampling.presets import PRESETS, Preset
from dgemma_cli.weights.checkpoint import Checkpoint


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
    context: int = CONTEXT,
) -> Report | None:
    """How the model is to be loaded on ``device`` ("auto" may be) in ``dtype``; None: as it is, and nothing was asked.
    flags: see ``judge``; context: tokens, of which a smaller model has as many as it has.

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
    report = judge(subject, machine, min(context, checkpoint.config.max_context), fit, device, work, flags)
    if report.problem is not None:
        raise report.problem
    return report
