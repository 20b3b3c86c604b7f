"""``dgemma``: the commands, put together."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from dgemma_cli import __version__
from dgemma_cli.commands.tree import Commands, Imported

COMMANDS = {  # name: where it is, and an example
    "run": ("run:run", "git diff | dgemma run 'Write a commit message:'"),
    "chat": ("chat:chat", "dgemma chat -m nano --stats"),
    "chats": ("chats:chats", ""),
    "replay": ("replay:replay", "dgemma run --record poem.jsonl 'Write a poem.'; dgemma replay poem.jsonl"),
    "export": ("export:export", "dgemma export poem.jsonl poem.svg"),
    "pull": ("pull:pull", "dgemma pull --dry-run diffusiongemma:int4"),
    "check": ("check:check", "dgemma check diffusiongemma --context 32768"),
    "quantize": (
        "quantize:quantize",
        "dgemma quantize diffusiongemma:bf16 ./small --format nvfp4 --dense 8bit",
    ),
    "list": ("list:list_models", "dgemma list --json"),
    "show": ("show:show", "dgemma show nano"),
    "rm": ("rm:rm", "dgemma rm diffusiongemma:bf16"),
    "serve": ("serve:serve", "dgemma serve -m nano --port 8080"),
    "ps": ("ps:ps", "dgemma run --keep 10m Hello; dgemma ps"),
    "stop": ("stop:stop", "dgemma stop nano"),
    "bench": ("bench:bench", "dgemma bench -m nano --presets reference,fast --quality"),
    "tune": ("tune:tune", "dgemma tune -m diffusiongemma:nvfp4"),
    "config": ("config:config", ""),
}


class _Root(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        commands: Any = Imported(COMMANDS)
        self.commands = commands


app = Commands(
    name="dgemma",
    cls=_Root,
    help="Run DiffusionGemma on your own machine and watch text crystallise.",
    epilog='Try it without a download: dgemma run -m nano "What is the capital of France?"',
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"dgemma {__version__}")
        raise typer.Exit


def _debug(wanted: bool) -> None:
    if wanted:
        os.environ["DGEMMA_DEBUG"] = "1"


def _install_completion(wanted: bool) -> None:
    if wanted:
        from dgemma_cli.commands.shells import current_shell, install

        shell = current_shell(os.environ)
        typer.echo(f"Completion for {shell} is in {install(shell, os.environ)}; the next shell has it.")
        raise typer.Exit


def _show_completion(wanted: bool) -> None:
    if wanted:
        from dgemma_cli.commands.shells import SCRIPTS, current_shell

        typer.echo(SCRIPTS[current_shell(os.environ)], nl=False)
        raise typer.Exit


@app.callback()
def dgemma(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    debug: Annotated[
        bool,
        typer.Option("--debug", callback=_debug, is_eager=True, help="Show where an error happened (DGEMMA_DEBUG=1)."),
    ] = False,
    install_completion: Annotated[
        bool,
        typer.Option(
            "--install-completion",
            callback=_install_completion,
            is_eager=True,
            help="Let TAB complete in this shell.",
        ),
    ] = False,
    show_completion: Annotated[
        bool,
        typer.Option(
            "--show-completion", callback=_show_completion, is_eager=True, help="Print what that would install."
        ),
    ] = False,
) -> None:
    pass
