"""A model that a command needs and that is not here: fetched after a question, or with ``--yes`` without one."""

from __future__ import annotations

from pathlib import Path

from dgemma_cli.catalog import cache
from dgemma_cli.catalog.hub_errors import GOES_ON
from dgemma_cli.catalog.known import INSTEAD
from dgemma_cli.catalog.names import parse
from dgemma_cli.errors import ModelUnavailable, NetworkError
from dgemma_cli.terminal.environment import Environment


def fetch_missing(model: str, environment: Environment, yes: bool, quiet: bool) -> None:
    """Pull ``model`` if it is not on this machine and the user agrees; otherwise do nothing, and loading will tell.

    Nobody is asked in a pipe, and nothing is fetched there without ``yes``. Raises what a pull raises.
    """
    try:
        meaning = parse(model)
    except ModelUnavailable:
        return
    if isinstance(meaning, Path) or cache.offline():
        return
    found = [cache.find(reference.repository, reference.revision) for reference in meaning]
    if any(snapshot is not None and snapshot.complete for snapshot in found):
        return
    state = "not whole" if any(found) else "not"
    if not yes and not (environment.interactive and environment.stderr_is_terminal):
        return

    from dgemma_cli.catalog.pull import pull
    from dgemma_cli.commands.asking import agreed
    from dgemma_cli.commands.pull import plan_text, planned
    from dgemma_cli.commands.pull_bar import watched
    from dgemma_cli.commands.pull_verdict import best

    try:
        plan = planned(best(meaning), environment, quiet)
    except NetworkError as error:
        why = error.message[0].lower() + error.message[1:]
        hint = f"{error.hint.removesuffix(GOES_ON).rstrip()}\n{INSTEAD}"
        raise NetworkError(f"{model} is {state} on this machine, and {why}", hint) from None
    if not quiet or not yes:
        environment.say(f"{model} is {state} on this machine.\n{plan_text(plan)}")
    plan.check_disk()
    if not yes and not agreed("Fetch it now?", environment, default=True):
        return
    with watched(environment, plan.total, plan.total - plan.to_fetch, quiet) as report:
        pull(plan, report)
