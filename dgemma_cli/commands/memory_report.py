"""What ``dgemma check`` tells: whether a model fits a machine, how it is made to, and what would fit instead."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from dgemma_cli import memory
from dgemma_cli.catalog.known import NANO
from dgemma_cli.errors import DgemmaError, DiskError, NoDevice, OutOfMemory
from dgemma_cli.fit import Fit, FitPlan, Place, place_of, plan, work_on
from dgemma_cli.machine import Machine
from dgemma_cli.memory import USUAL, Footprint, Kind, Needs, Work
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.terminal.untrusted import visible
from dgemma_cli.units import size
from dgemma_cli.weights.checkpoint import Checkpoint
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK
from dgemma_cli.weights.recipe import AS_STORED, Recipe
from dgemma_cli.weights.scheme import Scheme

# Weights that a CPU computes with at a pleasant speed: with these, having no GPU is no obstacle.
_SMALL = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Subject:
    """The model asked about. footprint_of: packed anew by a recipe; download: bytes still to be fetched, 0 if it is
    here; disk_free: where they would go.
    """

    name: str
    footprint_of: Callable[[Recipe], Footprint]
    download: int = 0
    disk: str = ""
    disk_free: int = 0

    @classmethod
    def here(cls, name: str, checkpoint: Checkpoint, dtype: str = "bfloat16") -> Subject:
        """A checkpoint on this machine."""
        return cls(name, lru_cache(lambda recipe: memory.of_checkpoint(checkpoint, dtype, recipe)))

    @classmethod
    def elsewhere(
        cls, name: str, config: ModelConfig, scheme: Scheme, download: int = 0, disk: str = "", disk_free: int = 0
    ) -> Subject:
        """A checkpoint of which only the configuration is known."""

        def footprint_of(recipe: Recipe) -> Footprint:
            return memory.of_scheme(config, scheme if recipe == AS_STORED else recipe.over(scheme))

        return cls(name, footprint_of, download, disk, disk_free)

    @property
    def footprint(self) -> Footprint:
        """As it is stored."""
        return self.footprint_of(AS_STORED)


@dataclass(frozen=True, slots=True)
class Report:
    """What ``check`` tells. device: where the model would run, "" if nowhere; kind, room: of that device, or of the one
    it was measured against; table: needs of every known checkpoint and of this one, as stored; plan: how it is made to
    fit, None if it cannot be; others: other checkpoints that fit a GPU; problem: why it cannot run; work: how canvases
    are denoised.
    """

    subject: Subject
    machine: Machine
    context: int
    fit: Fit
    device: str
    kind: Kind
    room: int
    table: dict[str, Needs]
    plan: FitPlan | None
    others: list[str]
    problem: DgemmaError | None
    work: Work = USUAL

    @property
    def longest_context(self) -> int:
        """Tokens that fit."""
        if self.plan is not None:
            return self.plan.longest
        return self.subject.footprint.longest_context(self.room, self.kind, work=self.work)

    def needs(self, work: Work) -> Needs:
        """Of ``work``, with the model loaded as planned."""
        assert self.plan is not None
        footprint = self.subject.footprint_of(self.plan.recipe)
        return footprint.needs(self.context, self.kind, self.plan.offloaded, replace(work, triton=self.work.triton))

    def spare(self, work: Work) -> int:
        """Bytes that ``work`` leaves free; negative if there are too few."""
        return self.room - self.needs(work).total

    def most(self, limit: int, work_of: Callable[[int], Work]) -> int:
        """The most, up to ``limit``, of which the work fits; one at the least."""
        return next((n for n in range(limit, 1, -1) if self.spare(work_of(n)) >= 0), 1)

    def check(self, work: Work) -> None:
        """Raises OutOfMemory unless it fits."""
        if self.spare(work) >= 0:
            return
        fewer = next((n for n in range(work.canvases - 1, 0, -1) if self.spare(replace(work, canvases=n)) >= 0), 0)
        raise OutOfMemory(
            f"That needs {size(self.needs(work).total)} in all, {size(self.room)} were free on {self.device}.",
            f"There is memory for best-of {fewer}." if fewer else "",
        )

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
        lines += ["", f"on {where}, with {self.context:,} tokens of context{_besides(self.work)}"]
        rows = dict(self.table)
        if self.plan is not None and not self.plan.as_stored:
            rows[f"  with --fit {_told(self.fit)}"] = self.plan.needs
        width = max(len(name) for name in rows)
        lines.append(f"{'':{width}}  {'weights':>9}{'cache':>9}{'working':>9}{'process':>9}{'in all':>9}")
        for name, needs in rows.items():
            figures = (needs.weights, needs.cache, needs.working, needs.process, needs.total)
            lines.append(f"{visible(name):{width}}  " + "".join(f"{size(figure):>9}" for figure in figures))
        lines += ["", self.verdict()]
        return "\n".join(lines)

    def verdict(self) -> str:
        """In a sentence."""
        name = visible(self.subject.name)
        if not self.device or self.plan is None:
            return f"{name} cannot run here"
        way = "as it is stored" if self.plan.as_stored else f"by --fit {_told(self.fit)} ({self.plan})"
        verdict = f"{name} fits on {self.device}, {way}: up to {self.longest_context:,} tokens of context"
        return verdict + (f"; so do {', '.join(self.others)}" if self.others else "")

    def as_dict(self) -> dict[str, Any]:
        """For programs. Sizes in bytes."""
        machine = asdict(self.machine)
        return {
            "model": self.subject.name,
            "context": self.context,
            "best_of": self.work.canvases,
            "fits": self.problem is None,
            "device": self.device or None,
            "verdict": self.problem.message if self.problem is not None else self.verdict(),
            "exit_code": self.problem.exit_code if self.problem is not None else 0,
            "measured_against": self.kind,
            "free": self.room,
            "needs": {name: needs.as_dict() for name, needs in self.table.items()},
            "fit": self.fit,
            "plan": self.plan and self.plan.as_dict(),
            "longest_context": self.longest_context,
            "others_that_fit": self.others,
            "download": self.subject.download,
            "disk_free": self.subject.disk_free if self.subject.download else None,
            "machine": machine,
        }


def judge(
    subject: Subject,
    machine: Machine,
    context: int,
    fit: Fit = "auto",
    device: str = "auto",
    work: Work = USUAL,
    flags: tuple[str, ...] = (),
    answer: int = 0,
) -> Report:
    """Hold a model against a device of a machine; with "auto" against the GPU with the most free memory. work: whether
    Triton's kernels compute is seen here. flags: what the command asking has to ask for less with, of "--best-of",
    "--parallel", "--cache" and "--context"; answer: what of the context is for --max-tokens, which can ask for less.

    Where there is no GPU a large model is not put on the CPU unasked.
    """
    place = place_of(machine, device)
    gpu, kind, room = place.gpu, place.kind, place.room
    allowed = room if isinstance(fit, str) else min(room, fit)
    table = {
        name: memory.of_scheme(NETWORK, published.scheme).needs(
            context, kind, work=work_on(work, machine, gpu, NETWORK, "bfloat16")
        )
        for name, published in CHECKPOINTS.items()
    }
    work = work_on(work, machine, gpu, subject.footprint.config, subject.footprint.dtype)
    if subject.name not in table or not subject.download:
        table[subject.name] = subject.footprint.needs(context, kind, work=work)
    needs = table[subject.name]
    found = plan(subject.footprint_of, context, place, fit, work)
    fitting = [name for name, other in table.items() if name != subject.name and other.total <= allowed]
    others = fitting if gpu is not None else []
    problem: DgemmaError | None = None
    if gpu is None and device not in ("auto", "cpu"):
        problem = NoDevice(machine.no_gpu or f"There is no GPU {device} here.", machine.remedy or "See: dgemma check")
    elif gpu is None and device == "auto" and subject.footprint.weights > _SMALL:
        problem = NoDevice(
            machine.no_gpu, f"{machine.remedy}\nOn the CPU, which is slow (--device cpu): {_on_the_cpu(needs, room)}"
        )
    elif found is None:
        cap = "" if allowed == room else f", {size(allowed)} of them allowed by --fit"
        problem = OutOfMemory(
            f"{subject.name} needs {size(needs.total)} with {context:,} tokens of context{_besides(work)}, "
            f"{size(room)} are free on {place}{cap}.",
            _what_else(subject, machine, replace(place, room=allowed), context, fit, others, work, flags, answer),
        )
    elif subject.download > subject.disk_free:
        problem = DiskError(
            f"{subject.name} is a download of {size(subject.download)}, {size(subject.disk_free)} are free in "
            f"{subject.disk}.",
            "Make room (dgemma list, dgemma rm), or name another folder: HF_HOME.",
        )
    return Report(
        subject,
        machine,
        context,
        fit,
        "" if problem else str(place),
        kind,
        allowed,
        table,
        found,
        others,
        problem,
        work,
    )


def _besides(work: Work) -> str:
    """What is asked for beside the usual."""
    asked = f", {work.canvases} canvases side by side" if work.canvases > 1 else ""
    asked += f", {work.replies} replies at a time" if work.replies > 1 else ""
    return asked + (f", {size(work.at_rest)} for caches of recent prompts" if work.at_rest else "")


def _told(fit: Fit) -> str:
    return fit if isinstance(fit, str) else size(fit).replace(" ", "")


def _on_the_cpu(needs: Needs, room: int) -> str:
    fits = "which is enough" if needs.total <= room else "which is too little"
    return f"it needs {size(needs.total)}, {size(room)} are free, {fits}."


def _asking_less(
    context: int, work: Work, flags: tuple[str, ...], answer: int
) -> Iterator[list[tuple[str, int, Work]]]:
    """For each flag the ways to ask for less with it, from the one that takes least away: in words, context, work."""
    if "--best-of" in flags:
        counts = range(work.canvases - 1, 0, -1)
        yield [(f"fewer canvases side by side: --best-of {n}", context, replace(work, canvases=n)) for n in counts]
    if "--parallel" in flags:
        counts = range(work.replies - 1, 0, -1)
        yield [(f"fewer replies at a time: --parallel {n}", context, replace(work, replies=n)) for n in counts]
    if "--cache" in flags:
        sizes = (size for size in (2.0, 1.0, 0.5, 0.0) if size * 1e9 < work.at_rest)
        ways = [(f"less for caches: --cache {n:g}", context, replace(work, at_rest=int(n * 1e9))) for n in sizes]
        if ways and work.replies > 1:
            ways.append(("both at the least: --parallel 1 --cache 0", context, replace(work, replies=1, at_rest=0)))
        yield ways
    if "--context" in flags:
        yield [(f"less context: --context {n}", n, work) for n in (4096, 2048, 1024) if n < context]
    lengths = (n for n in (32768, 8192, 2048, 1024, 512, 256) if n < answer)
    yield [(f"a shorter answer: --max-tokens {n}", context - answer + n, work) for n in lengths]


def _what_else(
    subject: Subject,
    machine: Machine,
    place: Place,
    context: int,
    fit: Fit,
    others: list[str],
    work: Work,
    flags: tuple[str, ...],
    answer: int,
) -> str:
    """What takes the memory, and what would fit instead: one a line."""
    gpu, kind, room = place.gpu, place.kind, place.room
    needs = subject.footprint.needs(context, kind, work=work)
    lines = [
        f"weights {size(needs.weights)}, KV cache {size(needs.cache)}, working memory {size(needs.working)}, "
        + ("CUDA context " if gpu is not None else "process ")
        + size(needs.process)
    ]
    if gpu is not None:
        lines += [f"{size(user.used)} are held by {visible(user.name)} ({user.pid})" for user in gpu.users]
    packed = plan(subject.footprint_of, context, place, room, work)
    if packed is not None:
        option = "auto" if kind == "cuda" and fit == "off" else _told(room)
        lines.append(f"It fits with --fit {option}: {packed}")

    def fits(context: int, work: Work) -> bool:
        return plan(subject.footprint_of, context, place, fit, work) is not None

    for ways in _asking_less(context, work, flags, answer):
        fitting = next((words for words, tokens, less in ways if fits(tokens, less)), None)
        if fitting is not None:
            lines.append(f"It fits with {fitting}")
    lines += [f"This one fits: dgemma check {name}" for name in others]
    if gpu is not None:
        lines.append(
            "On the CPU, which is slow (--device cpu): "
            + _on_the_cpu(subject.footprint.needs(context, "cpu", work=work), machine.free)
        )
    if subject.name != NANO:
        lines.append("The model that comes along fits anywhere: dgemma run -m nano")
    return "\n".join(lines)
