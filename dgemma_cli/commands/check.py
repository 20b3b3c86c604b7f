"""``dgemma check``: whether a model fits this machine, and what would."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from dgemma_cli import memory
from dgemma_cli.catalog import cache, known
from dgemma_cli.catalog.names import completions
from dgemma_cli.catalog.resolve import resolve
from dgemma_cli.commands.units import size
from dgemma_cli.errors import DgemmaError, DiskError, ModelUnavailable, NoDevice, OutOfMemory, UsageError
from dgemma_cli.machine import Machine, look
from dgemma_cli.memory import Footprint, Kind, Needs
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.untrusted import visible
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK

# Weights that a CPU computes with at a pleasant speed: with these, having no GPU is no obstacle.
_SMALL = 1_000_000_000


CONTEXT = 8192  # tokens to have room for, where nothing else is asked


def check(
    model: Annotated[
        str,
        typer.Argument(
            envvar="DGEMMA_MODEL", autocompletion=completions, help="A model's name, a Hugging Face id, or a folder."
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
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Tell whether a model fits this machine, before it is fetched or loaded.

    Exit code 0: it fits; 4: no usable device; 5: not enough memory; 6: not enough room on the disk.
    """
    subject = _subject(model)
    most = subject.footprint.config.max_context
    if context is None:
        context = min(CONTEXT, most)
    if not 1 <= context <= most:
        raise UsageError(f"context must be from 1 to {most:,} tokens, not {context:,}.")
    report = judge(subject, look(), context)
    environment = Environment.current()
    if json_output:
        environment.write(json.dumps(report.as_dict(), indent=2) + "\n")
    else:
        environment.write(report.text() + "\n")
    if report.problem is not None:
        raise report.problem


@dataclass(frozen=True, slots=True)
class Subject:
    """The model asked about. download: bytes still to be fetched, 0 if it is here; disk_free: where they would go."""

    name: str
    footprint: Footprint
    download: int = 0
    disk: str = ""
    disk_free: int = 0


def _subject(name: str) -> Subject:
    """Raises ModelUnavailable if the model is neither here nor one whose sizes are known."""
    try:
        location = resolve(name)
    except ModelUnavailable:
        meant = known.named(name)
        if not meant:
            raise
        published = CHECKPOINTS[meant[0].name]
        folder = cache.root()
        footprint = memory.of_scheme(NETWORK, published.scheme)
        return Subject(meant[0].name, footprint, published.download, str(folder), _free(folder))
    return Subject(location.name, memory.of_folder(location.folder))


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


@dataclass(frozen=True, slots=True)
class Report:
    """What ``check`` tells. device: where the model would run, "" if nowhere; kind, room: of that device, or of the one
    it was measured against; table: needs of every known checkpoint and of this one; longest_context: tokens that fit;
    others: other checkpoints that fit a GPU; problem: why it cannot run.
    """

    subject: Subject
    machine: Machine
    context: int
    device: str
    kind: Kind
    room: int
    table: dict[str, Needs]
    longest_context: int
    others: list[str]
    problem: DgemmaError | None

    def text(self) -> str:
        """For people."""
        machine = self.machine
        lines = [f"host     {machine.cores} cores, {size(machine.total)} of memory, {size(machine.free)} free"]
        for gpu in machine.gpus:
            shared = ", shared with the host" if gpu.unified else ""
            lines.append(
                f"cuda:{gpu.index}   {visible(gpu.name)}, {size(gpu.total)}, {size(gpu.free)} free{shared}; compute "
                f"capability {gpu.capability[0]}.{gpu.capability[1]}, driver {visible(gpu.driver)}"
            )
            lines += [f"         {size(user.used)} held by {visible(user.name)} ({user.pid})" for user in gpu.users]
        if not machine.gpus:
            lines.append(f"gpu      none: {machine.no_gpu}")
        lines.append(f"torch    {machine.torch}, " + (f"CUDA {machine.cuda}" if machine.cuda else "without CUDA"))
        if self.subject.download:
            lines.append(
                f"disk     {size(self.subject.disk_free)} free in {visible(self.subject.disk)}, "
                f"{size(self.subject.download)} to fetch"
            )
        where = "the CPU" if self.kind == "cpu" else "a GPU"
        lines += ["", f"on {where}, with {self.context:,} tokens of context"]
        width = max(len(name) for name in self.table)
        lines.append(f"{'':{width}}  {'weights':>9}{'cache':>9}{'working':>9}{'process':>9}{'in all':>9}")
        for name, needs in self.table.items():
            figures = (needs.weights, needs.cache, needs.working, needs.process, needs.total)
            lines.append(f"{visible(name):{width}}  " + "".join(f"{size(figure):>9}" for figure in figures))
        lines += ["", self._verdict()]
        return "\n".join(lines)

    def _verdict(self) -> str:
        name = visible(self.subject.name)
        if self.device:
            verdict = f"{name} fits on {self.device}, as it is stored: up to {self.longest_context:,} tokens of context"
        else:
            verdict = f"{name} cannot run here"
        return verdict + (f"; so do {', '.join(self.others)}" if self.device and self.others else "")

    def as_dict(self) -> dict[str, Any]:
        """For programs. Sizes in bytes."""
        machine = asdict(self.machine)
        return {
            "model": self.subject.name,
            "context": self.context,
            "fits": self.problem is None,
            "device": self.device or None,
            "verdict": self.problem.message if self.problem is not None else self._verdict(),
            "exit_code": self.problem.exit_code if self.problem is not None else 0,
            "measured_against": self.kind,
            "free": self.room,
            "needs": {name: needs.as_dict() for name, needs in self.table.items()},
            "longest_context": self.longest_context,
            "others_that_fit": self.others,
            "download": self.subject.download,
            "disk_free": self.subject.disk_free if self.subject.download else None,
            "machine": machine,
        }


def judge(subject: Subject, machine: Machine, context: int) -> Report:
    """Hold a model against a machine. A GPU is taken if there is one, the one with the most free memory."""
    kind: Kind = "cuda" if machine.gpus else "cpu"
    room, device = machine.free, "cpu"
    if machine.gpus:
        best = max(machine.gpus, key=lambda gpu: gpu.free)
        room, device = best.free, f"cuda:{best.index}"
    table = {
        name: memory.of_scheme(NETWORK, published.scheme).needs(context, kind)
        for name, published in CHECKPOINTS.items()
    }
    if subject.name not in table or not subject.download:
        table[subject.name] = subject.footprint.needs(context, kind)
    needs = table[subject.name]
    longest = subject.footprint.longest_context(room, kind)
    fitting = [name for name, other in table.items() if name != subject.name and other.total <= room]
    others = fitting if machine.gpus else []
    problem: DgemmaError | None = None
    if not machine.gpus and subject.footprint.weights > _SMALL:
        problem = NoDevice(
            machine.no_gpu, f"{machine.remedy}\nOn the CPU, which is slow (--device cpu): {_on_the_cpu(needs, room)}"
        )
    elif needs.total > room:
        problem = OutOfMemory(
            f"{subject.name} needs {size(needs.total)} with {context:,} tokens of context, {size(room)} are free on "
            f"{device}.",
            _what_else(subject, machine, context, longest, others),
        )
    elif subject.download > subject.disk_free:
        problem = DiskError(
            f"{subject.name} is a download of {size(subject.download)}, {size(subject.disk_free)} are free in "
            f"{subject.disk}.",
            "Make room (dgemma list, dgemma rm), or name another folder: HF_HOME.",
        )
    return Report(subject, machine, context, "" if problem else device, kind, room, table, longest, others, problem)


def _on_the_cpu(needs: Needs, room: int) -> str:
    fits = "which is enough" if needs.total <= room else "which is too little"
    return f"it needs {size(needs.total)}, {size(room)} are free, {fits}."


def _what_else(subject: Subject, machine: Machine, context: int, longest: int, others: list[str]) -> str:
    """What would fit instead, one proposal a line."""
    lines = []
    if 0 < longest < context:
        lines.append(f"It fits with less context: --context {longest}")
    lines += [f"This one fits: dgemma check {name}" for name in others]
    if machine.gpus:
        lines.append(
            "On the CPU, which is slow (--device cpu): "
            + _on_the_cpu(subject.footprint.needs(context, "cpu"), machine.free)
        )
    lines.append("The model that comes along fits anywhere: -m nano")
    return "\n".join(lines)
