"""``dgemma pull``: say what a download takes, then do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgemma_cli.catalog import known
from dgemma_cli.catalog.names import completions, parse_hub
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.units import size

if TYPE_CHECKING:
    from dgemma_cli.catalog.names import Reference
    from dgemma_cli.catalog.plan import Plan


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            envvar="DGEMMA_MODEL",
            autocompletion=completions,
            help="A catalog name, or a Hugging Face id: owner/name[@revision].",
        ),
    ] = known.DEFAULT,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    revision: Annotated[
        str | None, typer.Option("--revision", metavar="REVISION", help="Branch, tag or commit.", show_default="main")
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option("--cache-dir", metavar="DIR", help="Keep it in DIR.", show_default="the Hugging Face cache"),
    ] = None,
    max_workers: Annotated[
        int, typer.Option("--max-workers", metavar="N", min=1, max=64, help="Files to fetch at a time.")
    ] = 8,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No plan, no progress.")] = False,
) -> None:
    """Fetch a model, or the rest of one.

    Files, disk and memory are told first. It goes on where an earlier pull stopped, and uses what other tools left in
    the Hugging Face cache.
    """
    environment = Environment.current()
    if model == known.NANO:
        raise UsageError("nano is a part of dgemma: there is nothing to fetch.", 'Try it: dgemma run -m nano "Hello"')
    if dry_run and quiet and not json_output:
        raise UsageError("--dry-run and --quiet contradict each other.")
    if revision is not None:
        if "@" in model:
            raise UsageError(f"{model} names a revision, and so does --revision.")
        model = f"{model}@{revision}"
    references = parse_hub(model)

    from dgemma_cli.catalog.pull import pull as fetch
    from dgemma_cli.commands.pull_bar import watched
    from dgemma_cli.commands.pull_verdict import best

    plan = planned(best(references), environment, quiet, cache_dir)
    if dry_run:
        environment.write(json.dumps(describe(plan), indent=2) + "\n" if json_output else plan_text(plan) + "\n")
        plan.check_disk()
        return
    if not quiet:
        environment.say(plan_text(plan))
    plan.check_disk()
    with watched(environment, plan.total, plan.total - plan.to_fetch, quiet) as report:
        folder = fetch(plan, report, max_workers)
    if json_output:
        environment.write(json.dumps({**describe(plan), "complete": True}, indent=2) + "\n")
    if not quiet:
        name = model if cache_dir is None else folder
        environment.say(f'{model} is ready: dgemma run -m {name} "Why is the sky blue?"')


def planned(reference: Reference, environment: Environment, quiet: bool, cache_dir: Path | None = None) -> Plan:
    """What a pull of ``reference`` would do. On a terminal it is said who is asked, who may be slow to answer."""
    from dgemma_cli.catalog.plan import make_plan

    if environment.stderr_is_terminal and not quiet:
        environment.say(f"asking the Hub about {reference.name}", dim=True)
    return make_plan(reference, cache_dir)


def plan_text(plan: Plan) -> str:
    """The plan in a few lines."""
    from dgemma_cli.commands.pull_verdict import verdict

    here = plan.total - plan.to_fetch
    fetch = f"{size(plan.to_fetch)} to fetch" if plan.to_fetch else "all of it is here"
    found = verdict(plan)
    lines = [
        f"model   {plan.reference.repository} at {plan.reference.revision} ({plan.commit[:12]})",
        f"files   {len(plan.files)}, {size(plan.total)}: {fetch}"
        + (f", {size(here)} here already" if here and plan.to_fetch else ""),
        f"disk    {size(plan.disk_free)} free in {plan.cache}",
        f"memory  {size(found.needs)} with {found.context:,} tokens of context. {found.text()}",
    ]
    return "\n".join(lines)


def describe(plan: Plan) -> dict[str, Any]:
    """The plan for programs. Sizes in bytes."""
    from dgemma_cli.commands.pull_verdict import verdict

    found = verdict(plan)
    return {
        "model": plan.reference.name,
        "repository": plan.reference.repository,
        "revision": plan.reference.revision,
        "commit": plan.commit,
        "folder": str(plan.snapshot),
        "files": [{"name": file.name, "size": file.size, "here": file.name in plan.here} for file in plan.files],
        "size": plan.total,
        "to_fetch": plan.to_fetch,
        "disk_free": plan.disk_free,
        "weights": {"size": plan.weights.total, "exact": plan.weights.exact},
        "memory": {"needs": found.needs, "context": found.context, "fits": not found.problem, "verdict": found.text()},
    }
