"""``dgemma``: the commands, put together."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dgemma_cli import __version__
from dgemma_cli.commands.bench import bench
from dgemma_cli.commands.chat import chat
from dgemma_cli.commands.chats import chats
from dgemma_cli.commands.check import check
from dgemma_cli.commands.config import config
from dgemma_cli.commands.export import export
from dgemma_cli.commands.list import list_models
from dgemma_cli.commands.ps import ps
from dgemma_cli.commands.pull import pull
from dgemma_cli.commands.quantize import quantize
from dgemma_cli.commands.replay import replay
from dgemma_cli.commands.rm import rm
from dgemma_cli.commands.run import run
from dgemma_cli.commands.serve import serve
from dgemma_cli.commands.show import show
from dgemma_cli.commands.stop import stop

app = typer.Typer(
    name="dgemma",
    help="Run DiffusionGemma on your own machine and watch text crystallise.",
    epilog='Try it without a download: dgemma run -m nano "What is the capital of France?"',
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dgemma {__version__}")
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ["DGEMMA_DEBUG"] = "1"


@app.callback()
def dgemma(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", callback=_debug, is_eager=True, help="Show where an error happened (DGEMMA_DEBUG=1)."),
    ] = False,
) -> None:
    pass


app.command("run", epilog="Example: git diff | dgemma run 'Write a commit message:'")(run)
app.command("replay", epilog="Example: dgemma run --record poem.jsonl 'Write a poem.'; dgemma replay poem.jsonl")(
    replay
)
app.command("export", epilog="Example: dgemma export poem.jsonl poem.svg")(export)
app.command("pull", epilog="Example: dgemma pull --dry-run diffusiongemma:int4")(pull)
app.command("check", epilog="Example: dgemma check diffusiongemma --context 32768")(check)
app.command("quantize", epilog="Example: dgemma quantize diffusiongemma:bf16 ./small --format nvfp4 --dense 8bit")(
    quantize
)
app.command("list", epilog="Example: dgemma list --json")(list_models)
app.command("show", epilog="Example: dgemma show nano")(show)
app.command("rm", epilog="Example: dgemma rm diffusiongemma:bf16")(rm)
app.command("chat", epilog="Example: dgemma chat -m nano --stats")(chat)
app.command("serve", epilog="Example: dgemma serve -m nano --port 8080")(serve)
app.command("bench", epilog="Example: dgemma bench -m nano --presets reference,fast --quality")(bench)
app.command("ps", epilog="Example: dgemma run --keep 10m Hello; dgemma ps")(ps)
app.command("stop", epilog="Example: dgemma stop nano")(stop)
app.add_typer(chats, name="chats")
app.add_typer(config, name="config")
