"""``dgemma check``: whether a model fits this machine, and what would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgemma_cli.catalog import cache, known
from dgemma_cli.catalog.names import completions
from dgemma_cli.commands.knobs import BestOfOption, RepairOption
from dgemma_cli.commands.options import DeviceOption, FitOption
from dgemma_cli.engine.options import CONTEXT
from dgemma_cli.errors import ModelUnavailable, UsageError
from dgemma_cli.terminal.environment import Environment

if TYPE_CHECKING:
    from dgemma_cli.commands.memory_report import Subject


def check(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            envvar="DGEMMA_MODEL",
            autocompletion=completions,
            help="A model's name, a Hugging Face id, or a folder.",
        ),
    ] = known.DEFAULT,
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            metavar="N",
            help="Tokens of prompt and reply to have room for.",
            show_default=f"{CONTEXT}, or all that a smaller model has",
        ),
    ] = None,
    device: DeviceOption = "auto",
    fit: FitOption = "auto",
    best_of: BestOfOption = None,
    repair: RepairOption = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell whether a model fits this machine, before it is fetched.

    Exit code 0: it fits; 4: no usable device; 5: not enough memory; 6: not enough room on the disk.
    """
    from dgemma_cli.commands.before_loading import work_of
    from dgemma_cli.commands.memory_report import judge
    from dgemma_cli.engine.options import Options
    from dgemma_cli.fit import parse_fit
    from dgemma_cli.machine import look

    work = work_of(Options(best_of=best_of, repair=repair))
    wanted = parse_fit(fit)
    subject = _subject(model)
    most = subject.footprint.config.max_context
    if context is None:
        context = min(CONTEXT, most)
    if not 1 <= context <= most:
        raise UsageError(f"context must be from 1 to {most:,} tokens, not {context:,}.")
    report = judge(subject, look(), context, wanted, device, work, flags=("--best-of", "--context"))
    environment = Environment.current()
    if json_output:
        environment.write(json.dumps(report.as_dict(), indent=2) + "\n")
    else:
        environment.write(report.text() + "\n")
    if report.problem is not None:
        raise report.problem


def _subject(name: str) -> Subject:
    """Raises ModelUnavailable if the model is neither here nor one whose sizes are known."""
    from dgemma_cli.catalog.resolve import resolve
    from dgemma_cli.commands.memory_report import Subject
    from dgemma_cli.weights.checkpoint import read_checkpoint
    from dgemma_cli.weights.published import CHECKPOINTS, NETWORK

    try:
        location = resolve(name)
    except ModelUnavailable:
        meant = known.named(name)
        if not meant:
            raise
        published = CHECKPOINTS[meant[0].name]
        folder = cache.root()
        return Subject.elsewhere(
            meant[0].name, NETWORK, published.scheme, published.download, str(folder), _free(folder)
        )
    return Subject.here(location.name, read_checkpoint(location.folder))


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
