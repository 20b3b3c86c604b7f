"""``dgemma bench``: its options, and which of them contradict each other."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from dgemma_cli.bench.choices import Size, check_formats, formats
from dgemma_cli.catalog.known import DEFAULT
from dgemma_cli.commands.completing import one_of
from dgemma_cli.commands.dtype import Dtype
from dgemma_cli.commands.option_checks import given
from dgemma_cli.commands.options import DebugOption, DeviceOption, DtypeOption, EndpointOption, FitOption, ModelOption
from dgemma_cli.errors import UsageError
from dgemma_cli.sampling.presets import DEFAULT as DEFAULT_PRESET
from dgemma_cli.sampling.presets import PRESETS
from dgemma_cli.terminal.environment import Environment

REPETITIONS, MAX_TOKENS, RANDOM_STEPS, RANDOM_CONTEXT = 5, 512, 8, 256
BUDGET = 60.0  # seconds that the rounds may take where nobody says how many there shall be


class Form(StrEnum):
    """How a report is written."""

    MD = "md"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"


def bench(
    context: typer.Context,
    model: ModelOption = None,
    form: Annotated[
        str,
        typer.Option(
            "-o",
            "--report",
            metavar="|".join(Form),
            autocompletion=one_of(*Form),
            help="How the report is written.",
        ),
    ] = Form.MD.value,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Write to FILE instead of standard output.")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", metavar="OLD.json", help="Say what changed since an older report (-o json)."),
    ] = None,
    presets: Annotated[
        str | None,
        typer.Option(
            "--presets", metavar="A,B", help="Sampler presets, one after the other.", show_default="the default"
        ),
    ] = None,
    contexts: Annotated[
        str | None, typer.Option("--contexts", metavar="1k,4k", help="One question behind so many tokens instead.")
    ] = None,
    formats_: Annotated[
        str | None,
        typer.Option("--formats", metavar="A,B", help=f"Stored formats of {DEFAULT}: {', '.join(formats())}."),
    ] = None,
    prompt: Annotated[
        list[Path] | None, typer.Option("--prompt", metavar="FILE", help="A prompt of your own (may be repeated).")
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(
            "--max-tokens",
            metavar="N",
            help="Kept tokens of a reply at the most.",
            show_default=f"{MAX_TOKENS}; two blocks of random weights",
        ),
    ] = None,
    fixed_steps: Annotated[
        int | None,
        typer.Option("--fixed-steps", metavar="N", help="So many steps for every block: to compare machines."),
    ] = None,
    repetitions: Annotated[
        int | None,
        typer.Option(
            "--repetitions",
            metavar="R",
            help="Rounds that count.",
            show_default=f"{REPETITIONS}, fewer after {BUDGET:.0f} s",
        ),
    ] = None,
    warmup: Annotated[int, typer.Option("--warmup", metavar="N", help="Rounds before them that do not count.")] = 1,
    quality: Annotated[
        bool, typer.Option("--quality", help="Also count right answers (nano, or with --tasks).")
    ] = False,
    tasks: Annotated[
        Path | None,
        typer.Option("--tasks", metavar="FILE", help='Tasks for --quality: {"prompt": …, "answer": …} a line.'),
    ] = None,
    profile: Annotated[bool, typer.Option("--profile", help="Also draw where the time of a step goes.")] = False,
    random_weights: Annotated[
        Size | None,
        typer.Option("--random-weights", help="Measure steps of random weights of this size: nothing is fetched."),
    ] = None,
    endpoint: EndpointOption = None,
    concurrency: Annotated[
        str | None,
        typer.Option(
            "--concurrency", metavar="1,4,16", help="Users at once of the --endpoint, a row each.", show_default="1"
        ),
    ] = None,
    device: DeviceOption = "auto",
    dtype: DtypeOption = Dtype.AUTO,
    fit: FitOption = "off",  # as it is stored, unless something else is asked
    debug: DebugOption = False,
) -> None:
    """Measure a model here, beside what the machine allows.

    A short run by default: shipped prompts, each in several rounds. What each figure means: docs/bench.md.
    """
    # Only now, so that --help and TAB stay quick.
    from dgemma_cli.bench.prompts import parse_contexts
    from dgemma_cli.commands.bench_request import Request
    from dgemma_cli.commands.benching import perform
    from dgemma_cli.fit import parse_fit

    if debug:
        os.environ["DGEMMA_DEBUG"] = "1"
    if form not in list(Form):
        raise UsageError(
            f"There is no report in the form {form!r}.", f"-o {'|'.join(Form)}; into a file: --output {form}"
        )
    if endpoint:
        _bench_endpoint(
            context, endpoint, model, concurrency, prompt, max_tokens, repetitions, warmup, Form(form), output
        )
        return
    if concurrency is not None:
        raise UsageError("--concurrency is for the users of an --endpoint.", "On this machine: dgemma serve, then it.")
    asked_presets = _names("--presets", presets)
    asked_formats = _names("--formats", formats_)
    for name in asked_presets:
        if name not in PRESETS:
            raise UsageError(f"There is no preset {name!r}.", f"Presets: {', '.join(PRESETS)}.")
    check_formats(asked_formats)
    at_least = {"--max-tokens": (max_tokens, 1), "--fixed-steps": (fixed_steps, 1)}
    at_least |= {"--repetitions": (repetitions, 1), "--warmup": (warmup, 0)}
    for flag, (value, least) in at_least.items():
        if value is not None and value < least:
            raise UsageError(f"{flag} must be at least {least}, not {value}.")
    if fixed_steps is not None and asked_presets:
        raise UsageError("--fixed-steps and --presets contradict each other: with fixed steps no preset decides.")
    quality = quality or tasks is not None
    if fixed_steps is not None and quality:
        raise UsageError("--fixed-steps and --quality contradict each other: with fixed steps no preset is judged.")
    if random_weights is not None:
        _refuse_with_random_weights(
            {
                "--model": given(context, "model"),
                "--presets": bool(asked_presets),
                "--prompt": bool(prompt),
                "--quality": quality,
                "--fit": given(context, "fit"),
            }
        )
    elif asked_formats and (model or DEFAULT) != DEFAULT:
        raise UsageError(
            f"{model} is one checkpoint, in one format: there is nothing for --formats to choose.",
            f"Try: -m {DEFAULT} --formats {','.join(asked_formats)}",
        )
    perform(
        Request(
            model=model or DEFAULT,
            random_weights=random_weights,
            formats=asked_formats,
            presets=asked_presets or (DEFAULT_PRESET,),
            contexts=parse_contexts(contexts) if contexts is not None else (),
            prompts=tuple(prompt or ()),
            max_tokens=max_tokens,
            fixed_steps=fixed_steps,
            repetitions=repetitions,
            warmup=warmup,
            quality=quality,
            tasks=tasks,
            profile=profile,
            device=device,
            dtype=dtype.value,
            fit=parse_fit(fit),
            form=Form(form),
            output=output,
            compare=compare,
            flags=tuple(sys.argv[1:]),
        ),
        Environment.current(),
    )


def _bench_endpoint(
    context: typer.Context,
    endpoint: str,
    model: str | None,
    concurrency: str | None,
    prompts: list[Path] | None,
    max_tokens: int | None,
    repetitions: int | None,
    warmup: int,
    form: Form,
    output: Path | None,
) -> None:
    """Raises UsageError for flags that look into a model, which only one in this process allows."""
    from dgemma_cli.commands.bench_endpoint import Request, parse_users, perform

    flags = ("compare", "presets", "contexts", "formats_", "fixed_steps", "quality", "tasks", "profile")
    local = [name for name in (*flags, "random_weights", "device", "dtype", "fit") if given(context, name)]
    if local:
        names = ", ".join(f"--{name.strip('_').replace('_', '-')}" for name in local)
        raise UsageError(f"{names}: that needs the model in this process, but {endpoint} is to be measured.")
    for flag, value, least in (
        ("--max-tokens", max_tokens, 1),
        ("--repetitions", repetitions, 1),
        ("--warmup", warmup, 0),
    ):
        if value is not None and value < least:
            raise UsageError(f"{flag} must be at least {least}, not {value}.")
    perform(
        Request(
            endpoint=endpoint,
            model=model,
            users=parse_users(concurrency or "1"),
            prompts=tuple(prompts or ()),
            max_tokens=max_tokens or MAX_TOKENS,
            repetitions=repetitions or 3,
            warmup=warmup,
            form=form,
            output=output,
            flags=tuple(sys.argv[1:]),
        ),
        Environment.current(),
    )


def _names(flag: str, text: str | None) -> tuple[str, ...]:
    """The names in "a,b"."""
    if text is None:
        return ()
    found = tuple(part.strip() for part in text.split(","))
    if not all(found):
        raise UsageError(f"{flag} names nothing between two commas.")
    if len(set(found)) < len(found):
        raise UsageError(f"{flag} names the same twice.")
    return found


def _refuse_with_random_weights(flags: dict[str, bool]) -> None:
    for name, is_given in flags.items():
        if is_given:
            raise UsageError(f"--random-weights and {name} contradict each other: random weights say nothing.")
