"""``dgemma rm``: take a downloaded model off the disk."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from dgemma_cli.catalog import known
from dgemma_cli.catalog.names import completions, parse_hub
from dgemma_cli.commands.asking import agreed
from dgemma_cli.errors import ModelUnavailable, UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.units import size


def rm(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            autocompletion=completions,
            help="What to remove: with @revision only that one, else the whole repository.",
        ),
    ],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    cache_dir: Annotated[
        Path | None,
        typer.Option("--cache-dir", metavar="DIR", help="Look in DIR.", show_default="the Hugging Face cache"),
    ] = None,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Remove a downloaded model. Content that something else uses stays."""
    environment = Environment.current()
    if model == known.NANO:
        raise UsageError("nano is a part of dgemma and cannot be removed by itself.")
    try:
        references = parse_hub(model)
    except ModelUnavailable:
        if Path(model).is_dir():
            hint = f"rm -r {shlex.quote(model)}"
            raise UsageError(f"{model} is a folder of yours; rm takes away what was pulled.", hint) from None
        raise

    from dgemma_cli.catalog.removal import plan_removal, remove

    removal = plan_removal(references, pinned="@" in model, cache_folder=cache_dir)
    what = removal.repository + (f" at {removal.commit[:12]}" if removal.commit else "")
    if not yes and not _agreed(environment, f"Remove {what} ({size(removal.size)} in {removal.folder})?"):
        environment.say("Nothing was removed.")
        return
    freed = remove(removal)
    if json_output:
        found = {"repository": removal.repository, "commit": removal.commit, "freed": freed}
        environment.write(json.dumps(found, indent=2) + "\n")
    else:
        environment.say(f"Removed {what}: {size(freed)} freed.")


def _agreed(environment: Environment, question: str) -> bool:
    if not (environment.stdin_is_terminal and environment.stderr_is_terminal):
        raise UsageError("rm asks before it deletes, and nobody can be asked here.", "To delete without a question: -y")
    return agreed(question, environment)
