"""Which model a command takes when none is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dgemma_cli.catalog import cache
from dgemma_cli.catalog.known import DEFAULT
from dgemma_cli.catalog.names import parse_hub, short_name
from dgemma_cli.terminal.environment import Environment

if TYPE_CHECKING:
    from dgemma_cli.machine import Machine


def default_model(environment: Environment, quiet: bool, machine: Machine | None = None) -> str:
    """Of the large model's checkpoints on this disk the first that fits the GPU as it is stored; with more than one to
    choose from, which and why is said on standard error. machine: made up, in tests.
    """
    found = [(reference, cache.find(reference.repository, reference.revision)) for reference in parse_hub(DEFAULT)]
    here = [reference for reference, snapshot in found if snapshot is not None and snapshot.complete]
    if len(here) < 2:  # nothing to choose
        return DEFAULT

    from dgemma_cli.commands.memory_report import Subject, judge
    from dgemma_cli.commands.pull_verdict import best
    from dgemma_cli.engine.options import CONTEXT
    from dgemma_cli.machine import look
    from dgemma_cli.weights.published import CHECKPOINTS, NETWORK

    machine = machine or look()
    name = short_name(best(here, machine).repository)
    report = judge(Subject.elsewhere(name, NETWORK, CHECKPOINTS[name].scheme), machine, CONTEXT, "off")
    if report.problem is None:
        why = f"the first of {len(here)} on this disk that fits {report.device} as it is stored"
    else:
        why = f"the first of {len(here)} on this disk; none of them fits a GPU here as it is stored"
    if not quiet:
        environment.say(f"{name}: {why} (another: -m, or dgemma config set model)", dim=True)
    return name
