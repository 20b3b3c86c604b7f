"""``dgemma run``: the options of one prompt and one answer, and which of them contradict each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from dgemma_cli.catalog.known import DEFAULT, names
from dgemma_cli.commands.default_model import default_model
from dgemma_cli.commands.dtype import Dtype
from dgemma_cli.commands.fetch_missing import fetch_missing
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
from dgemma_cli.commands.option_checks import check_coloring, check_slow, given
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
from dgemma_cli.commands.prompt import read_prompt
from dgemma_cli.commands.where import remote, where
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.color_by import ColorBy
from dgemma_cli.terminal.environment import Environment


def run(
    context: typer.Context,
    prompt: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT",
            help="What to answer. Piped input comes before it, a blank line between; - is the input alone.",
            show_default=False,
        ),
    ] = None,
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
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object: text and figures.")] = False,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Print every event as a JSON line.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write to FILE instead of standard output."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option("--record", metavar="FILE", help="Keep every step in FILE."),
    ] = None,
    live: LiveOption = None,
    slow: Annotated[
        int | None, typer.Option("--slow", metavar="MS", help="Hold each step for MS milliseconds.")
    ] = None,
    color_by: Annotated[
        ColorBy | None,
        typer.Option(
            "--color-by", envvar="DGEMMA_COLOR_BY", help="What colours tell in the live view.", show_default="state"
        ),
    ] = None,
    show_thinking: ShowThinkingOption = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Render the answer as markdown (terminal only).")
    ] = False,
    stats: StatsOption = False,
    yes: YesOption = False,
    no_color: NoColorOption = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Nothing but the answer and errors.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Tell which files and device are used.")] = False,
    debug: DebugOption = False,
) -> None:
    """Answer one prompt; without one, on a terminal, chat.

    The answer goes to standard output, everything else to standard error.
    """
    # Only now, so that --help and TAB stay quick.
    from dgemma_cli.commands.one_shot import Request, perform
    from dgemma_cli.fit import parse_fit

    if debug:
        os.environ["DGEMMA_DEBUG"] = "1"
    environment = Environment.current()
    place = where(context, server, keep, endpoint)
    # A setting gives way to the flags of this run; only flags can contradict one another.
    if live and not given(context, "live"):
        live = None
    if quiet and not given(context, "stats"):
        stats = False
    if (quiet or json or jsonl) and not given(context, "show_thinking"):
        show_thinking = False
    _refuse_both(("--json", json), ("--jsonl", jsonl))
    _refuse_both(("--quiet", quiet), ("--verbose", verbose))
    _refuse_both(("--quiet", quiet), ("--stats", stats))
    _refuse_both(("--quiet", quiet), ("--show-thinking", show_thinking))
    chatting = not prompt and environment.interactive
    steps_wanted = {
        "--live": bool(live),
        "--record": record is not None,
        "--slow": slow is not None,
        "--color-by": given(context, "color_by"),
    }
    writer = None if chatting else remote(place, model, environment, steps_wanted)
    if writer is not None and not writer.tells_steps:
        live = False
    wanted_fit = parse_fit(fit)
    wants_live = _live(live, environment, quiet, json_lines=jsonl and output is None)
    color = environment.color(no_color)
    if not (wants_live and color) and not given(context, "color_by"):
        color_by = None
    if color_by is not None and not wants_live:
        raise UsageError("--color-by colours the live view, which is off here.")
    check_coloring(color_by, color)
    check_slow(slow)
    if slow is not None and not (wants_live or jsonl or record):
        raise UsageError(
            "--slow holds steps, but nothing shows or keeps them here.", "Add --live, --jsonl or --record."
        )
    if markdown and (json or jsonl or output is not None or not environment.stdout_is_terminal):
        raise UsageError("--markdown is for an answer on a terminal.", "Leave it out: the answer is markdown already.")
    if show_thinking and (json or jsonl) and not wants_live:
        raise UsageError("--show-thinking has nothing to show: JSON holds the thinking already.")
    if chatting:
        _refuse_in_chat(
            {
                "--json": json,
                "--jsonl": jsonl,
                "--output": output is not None,
                "--record": record is not None,
                "--slow": slow is not None,
                "--color-by": given(context, "color_by"),
                "--quiet": quiet,
                "--verbose": verbose,
            }
        )
        _chat(context)
        return
    options = Options(
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
        drafts=wants_live or jsonl or stats or record is not None,
    )
    said = read_prompt(prompt or [], environment)
    if prompt and prompt[0] in names() and not (given(context, "model") or quiet):
        environment.say(f"{prompt[0]} is read as the prompt's first word; as the model: -m {prompt[0]}", dim=True)
    if writer is None:
        model = model or default_model(environment, quiet)
        fetch_missing(model, environment, yes, quiet)
    perform(
        Request(
            prompt=said,
            system=system,
            model=model or DEFAULT,
            device=device,
            dtype=dtype.value,
            where=place,
            writer=writer,
            fit=wanted_fit,
            thinking=think,
            options=options,
            format="json" if json else "jsonl" if jsonl else "text",
            output=output,
            record=record,
            live=wants_live,
            show_thinking=show_thinking,
            markdown=markdown,
            stats=stats,
            color=color,
            color_by=color_by or ColorBy.STATE,
            slow=(slow or 0) / 1000,
            quiet=quiet,
            verbose=verbose,
        ),
        environment,
    )


def _chat(context: typer.Context) -> None:
    """``dgemma chat`` with the flags of this line, and for all else its own settings."""
    tree: Any = context.find_root().command
    chat = tree.commands["chat"]
    with chat.make_context("chat", [], parent=context.parent) as inner:
        for name in inner.params:
            if given(context, name):
                inner.params[name] = context.params[name]
                inner.set_parameter_source(name, context.get_parameter_source(name))
        chat.invoke(inner)


def _refuse_in_chat(flags: dict[str, bool]) -> None:
    given = [name for name, is_given in flags.items() if is_given]
    if given:
        raise UsageError(
            "There is no prompt.", f"Give one; without a prompt a chat begins, which takes no {', '.join(given)}."
        )


def _refuse_both(*flags: tuple[str, bool]) -> None:
    if all(given for _, given in flags):
        raise UsageError(" and ".join(name for name, _ in flags) + " contradict each other.")


def _live(flag: bool | None, environment: Environment, quiet: bool, json_lines: bool) -> bool:
    """Whether to draw. Left open: on a terminal, unless the answer goes into a pipe, whose reader (``less``, ``tee``)
    may write on the same screen.
    """
    busy = json_lines and environment.stdout_is_terminal  # lines and a live view do not share a screen
    if not flag:
        wanted = flag is None and not quiet and not busy and not environment.stdout_is_pipe
        return wanted and environment.stderr_is_terminal and not environment.dumb
    if not environment.stderr_is_terminal:
        raise UsageError("--live draws on standard error, which is no terminal here.")
    if environment.dumb:
        raise UsageError("--live cannot draw on this terminal (TERM is dumb or not set).")
    if busy:
        raise UsageError("--live and --jsonl cannot share the terminal.", "Redirect the lines: --jsonl -o FILE")
    _refuse_both(("--live", True), ("--quiet", quiet))
    return True
