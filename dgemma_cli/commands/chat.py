"""``dgemma chat``: a conversation, its options, and where it comes from."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dgemma_cli.commands.dtype import Dtype
from dgemma_cli.commands.knobs import (
    DEFAULT_PRESET,
    BoundOption,
    ConfidenceOption,
    HorizonOption,
    PresetOption,
    StabilityOption,
    StepsOption,
    TMaxOption,
    TMinOption,
)
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment


def chat(
    model: Annotated[
        str | None,
        typer.Option(
            "-m",
            "--model",
            envvar="DGEMMA_MODEL",
            help="A model's name, a Hugging Face id, or a folder.",
            show_default="the large one, or the conversation's",
        ),
    ] = None,
    system: Annotated[
        str | None, typer.Option("-s", "--system", help="System prompt: how to answer.", show_default=False)
    ] = None,
    max_tokens: Annotated[
        int, typer.Option("-n", "--max-tokens", metavar="N", help="Kept tokens of an answer at the most.")
    ] = Options().max_tokens,
    seed: Annotated[
        int | None,
        typer.Option("--seed", metavar="N", help="The same seed gives the same answers.", show_default="random"),
    ] = None,
    preset: PresetOption = DEFAULT_PRESET,
    steps: StepsOption = None,
    horizon: HorizonOption = None,
    t_min: TMinOption = None,
    t_max: TMaxOption = None,
    entropy_bound: BoundOption = None,
    stability: StabilityOption = None,
    confidence: ConfidenceOption = None,
    think: Annotated[bool, typer.Option("--think", help="Let the model think before it answers.")] = False,
    device: Annotated[
        str, typer.Option("--device", envvar="DGEMMA_DEVICE", metavar="auto|cpu|cuda[:N]", help="Where to compute.")
    ] = "auto",
    dtype: Annotated[
        Dtype, typer.Option("--dtype", envvar="DGEMMA_DTYPE", help="Number format; auto is bfloat16.")
    ] = Dtype.AUTO,
    continue_: Annotated[bool, typer.Option("--continue", help="Go on with the last conversation.")] = False,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="ID", help="Go on with this one (dgemma chats list).", show_default=False),
    ] = None,
    save: Annotated[
        bool,
        typer.Option("--save/--no-save", help="Keep the conversation (DGEMMA_NO_SAVE=1 keeps none)."),
    ] = True,
    live: Annotated[
        bool | None,
        typer.Option("--live/--no-live", help="Show the canvas while it settles.", show_default="on a terminal"),
    ] = None,
    show_thinking: Annotated[bool, typer.Option("--show-thinking", help="Show thoughts in full.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown/--no-markdown", help="Render answers as markdown.")] = True,
    stats: Annotated[bool, typer.Option("--stats", help="Print a line of figures after each answer.")] = False,
    yes: Annotated[
        bool, typer.Option("-y", "--yes", help="Fetch a model that is not on this machine without asking.")
    ] = False,
    no_color: Annotated[bool, typer.Option("--no-color", help="No colours (NO_COLOR=1).")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error happened (DGEMMA_DEBUG=1).")] = False,
) -> None:
    """Chat with a model. /help lists what can be done on the way.

    The conversation is kept as it goes: --continue goes on with the last one, `dgemma chats` looks after them.
    """
    if debug:
        os.environ["DGEMMA_DEBUG"] = "1"
    environment = Environment.current()
    if not interactive(environment):
        raise UsageError("dgemma chat needs a terminal to type in and to write to.", 'For a script: dgemma run "..."')
    if continue_ and resume is not None:
        raise UsageError("--continue and --resume contradict each other.")
    if live and (environment.dumb or not environment.stderr_is_terminal):
        raise UsageError("--live cannot draw here: standard error is no terminal that can be drawn on.")
    from dgemma_cli.chat.settings import Settings
    from dgemma_cli.commands.conversing import Opening, start

    start(
        Opening(
            model=model,
            device=device,
            dtype=dtype.value,
            system=system,
            settings=Settings(
                options=Options(
                    max_tokens=max_tokens,
                    seed=seed,
                    preset=preset,
                    steps=steps,
                    horizon=horizon,
                    t_min=t_min,
                    t_max=t_max,
                    entropy_bound=entropy_bound,
                    stability=stability,
                    confidence=confidence,
                ),
                thinking=think,
                show_thinking=show_thinking,
                markdown=markdown and not environment.dumb,
                stats=stats,
            ),
            live=(environment.stderr_is_terminal and not environment.dumb) if live is None else live,
            color=environment.color(no_color),
            resume="" if continue_ else resume,
            fetch=yes,
            keep=save and not environment.variables.get("DGEMMA_NO_SAVE"),
        ),
        environment,
    )


def interactive(environment: Environment) -> bool:
    """Somebody types, and sees what is written."""
    return environment.stdin_is_terminal and environment.stdout_is_terminal
