"""``dgemma chat``: a conversation, its options, and where it comes from."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dgemma_cli.commands.completing import chat_ids
from dgemma_cli.commands.dtype import Dtype
from dgemma_cli.commands.knobs import (
    BestOfOption,
    BoundOption,
    ConfidenceOption,
    GuardOption,
    HorizonOption,
    PresetOption,
    RepairOption,
    SamplerOption,
    SpacingOption,
    StabilityOption,
    StepsOption,
    TMaxOption,
    TMinOption,
    chosen,
)
from dgemma_cli.commands.option_checks import given
from dgemma_cli.commands.options import (
    MAX_TOKENS,
    DebugOption,
    DeviceOption,
    DtypeOption,
    EndpointOption,
    FitOption,
    KeepOption,
    LiveOption,
    MaxTokensOption,
    ModelOption,
    NoColorOption,
    SeedOption,
    ServerOption,
    ShowThinkingOption,
    StatsOption,
    SystemOption,
    ThinkOption,
    YesOption,
)
from dgemma_cli.commands.where import where
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment


def chat(
    context: typer.Context,
    model: ModelOption = None,
    system: SystemOption = None,
    max_tokens: MaxTokensOption = MAX_TOKENS,
    seed: SeedOption = None,
    preset: PresetOption = None,
    sampler: SamplerOption = None,
    steps: StepsOption = None,
    horizon: HorizonOption = None,
    t_min: TMinOption = None,
    t_max: TMaxOption = None,
    entropy_bound: BoundOption = None,
    spacing: SpacingOption = None,
    stability: StabilityOption = None,
    confidence: ConfidenceOption = None,
    best_of: BestOfOption = None,
    repair: RepairOption = False,
    guard: GuardOption = True,
    think: ThinkOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.AUTO,
    server: ServerOption = True,
    keep: KeepOption = None,
    endpoint: EndpointOption = None,
    fit: FitOption = "auto",
    continue_: Annotated[bool, typer.Option("--continue", help="Go on with the last conversation.")] = False,
    resume: Annotated[
        str | None,
        typer.Option(
            "--resume",
            metavar="ID",
            autocompletion=chat_ids,
            help="Go on with this one (dgemma chats list).",
            show_default=False,
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option("--save/--no-save", envvar="DGEMMA_SAVE", help="Keep the conversation."),
    ] = True,
    live: LiveOption = None,
    show_thinking: ShowThinkingOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown/--no-markdown", envvar="DGEMMA_MARKDOWN", help="Render answers as markdown.")
    ] = True,
    stats: StatsOption = False,
    yes: YesOption = False,
    no_color: NoColorOption = False,
    debug: DebugOption = False,
) -> None:
    """Chat with a model. /help lists what can be done on the way.

    The conversation is kept as it goes: --continue goes on with the last one, `dgemma chats` looks after them.
    """
    if debug:
        os.environ["DGEMMA_DEBUG"] = "1"
    environment = Environment.current()
    if not environment.interactive:
        raise UsageError("dgemma chat needs a terminal to type in and to write to.", 'For a script: dgemma run "..."')
    if continue_ and resume is not None:
        raise UsageError("--continue and --resume contradict each other.")
    if live and not given(context, "live"):
        live = None
    if live and (environment.dumb or not environment.stderr_is_terminal):
        raise UsageError("--live cannot draw here: standard error is no terminal that can be drawn on.")
    from dgemma_cli.chat.settings import Settings
    from dgemma_cli.commands.conversing import Opening, start
    from dgemma_cli.fit import parse_fit

    start(
        Opening(
            model=model,
            device=device,
            dtype=dtype.value,
            where=where(context, server, keep, endpoint),
            fit=parse_fit(fit),
            system=system,
            settings=Settings(
                options=Options(
                    max_tokens=max_tokens,
                    seed=seed,
                    preset=chosen(preset, sampler),
                    steps=steps,
                    horizon=horizon,
                    t_min=t_min,
                    t_max=t_max,
                    entropy_bound=entropy_bound,
                    spacing=spacing,
                    stability=stability,
                    confidence=confidence,
                    best_of=best_of,
                    repair=repair,
                    guard=guard,
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
            keep=save,
        ),
        environment,
    )
