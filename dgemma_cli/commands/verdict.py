"""Whether a model that is not here yet would fit this machine, and which of several would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgemma_cli import memory
from dgemma_cli.catalog.names import Reference, short_name
from dgemma_cli.commands.judging import Subject, judge
from dgemma_cli.engine.options import CONTEXT
from dgemma_cli.fit import work_on
from dgemma_cli.machine import Machine, look
from dgemma_cli.memory import USUAL
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK

if TYPE_CHECKING:
    from dgemma_cli.catalog.plan import Plan


@dataclass(frozen=True, slots=True)
class Verdict:
    """needs: bytes with ``context`` tokens; problem: why it does not fit, "" if it does; device: where it would run;
    way: how it is made to fit, "" if it fits as it is stored.
    """

    needs: int
    context: int
    device: str
    problem: str
    way: str = ""

    def text(self) -> str:
        """In a sentence."""
        return self.problem or f"It fits on {self.device}{f', by --fit auto: {self.way}' if self.way else ''}."


def verdict(plan: Plan, machine: Machine | None = None) -> Verdict:
    """Hold the model of a pull against this machine (``machine`` in tests)."""
    context = min(CONTEXT, plan.config.max_context)
    subject = Subject.elsewhere(plan.reference.name, plan.config, plan.scheme)  # of the disk the pull speaks for itself
    report = judge(subject, machine or look(), context)
    problem = report.problem.message if report.problem is not None else ""
    needs = report.plan.needs if report.plan is not None else subject.footprint.needs(context, report.kind)
    way = "" if report.plan is None or report.plan.as_stored else str(report.plan)
    return Verdict(needs.total, context, report.device, problem, way)


def best(references: Sequence[Reference], machine: Machine | None = None) -> Reference:
    """The first of several checkpoints that fits this machine's GPU as it is stored; where none does, the first."""
    if len(references) == 1:
        return references[0]
    machine = machine or look()
    if not machine.gpus:
        return references[0]
    gpu = max(machine.gpus, key=lambda gpu: gpu.free)
    for reference in references:
        footprint = memory.of_scheme(NETWORK, CHECKPOINTS[short_name(reference.repository)].scheme)
        work = work_on(USUAL, machine, gpu, NETWORK, footprint.dtype)
        if footprint.needs(CONTEXT, "cuda", work=work).total <= gpu.free:  # what `judge` says, without its hints
            return reference
    return references[0]
