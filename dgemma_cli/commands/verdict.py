"""Whether a model that is not here yet would fit this machine, and which of several would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dgemma_cli import memory
from dgemma_cli.catalog.names import Reference, short_name
from dgemma_cli.commands.check import CONTEXT, Subject, judge
from dgemma_cli.machine import Machine, look
from dgemma_cli.weights.published import CHECKPOINTS, NETWORK

if TYPE_CHECKING:
    from dgemma_cli.catalog.plan import Plan


@dataclass(frozen=True, slots=True)
class Verdict:
    """needs: bytes with ``context`` tokens; problem: why it does not fit, "" if it does; device: where it would run."""

    needs: int
    context: int
    device: str
    problem: str

    def text(self) -> str:
        """In a sentence."""
        return self.problem or f"It fits on {self.device}."


def verdict(plan: Plan, machine: Machine | None = None) -> Verdict:
    """Hold the model of a pull against this machine (``machine`` in tests)."""
    footprint = memory.of_scheme(plan.config, plan.scheme)
    context = min(CONTEXT, plan.config.max_context)
    subject = Subject(plan.reference.name, footprint)  # of the disk the pull speaks for itself
    report = judge(subject, machine or look(), context)
    problem = report.problem.message if report.problem is not None else ""
    return Verdict(footprint.needs(context, report.kind).total, context, report.device, problem)


def best(references: Sequence[Reference], machine: Machine | None = None) -> Reference:
    """The first of several checkpoints that fits this machine's GPU; the first of all where none does."""
    if len(references) == 1:
        return references[0]
    for reference in references:
        published = CHECKPOINTS[short_name(reference.repository)]
        subject = Subject(reference.name, memory.of_scheme(NETWORK, published.scheme))
        if judge(subject, machine or look(), CONTEXT).problem is None:
            return reference
    return references[0]
