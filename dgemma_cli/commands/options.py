"""Options that several commands share. Those with a DGEMMA_ variable are settings, too (dgemma config). No torch."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from dgemma_cli.catalog.names import completions
from dgemma_cli.commands.completing import one_of
from dgemma_cli.commands.dtype import Dtype
from dgemma_cli.commands.option_checks import checked_device, checked_model
from dgemma_cli.engine.options import Options

MAX_TOKENS = Options().max_tokens

ModelOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-m",
        "--model",
        envvar="DGEMMA_MODEL",
        metavar="MODEL",
        autocompletion=completions,
        callback=checked_model,
        help="A model's name, a Hugging Face id, or a folder.",
        show_default="the large one",
    ),
]
SystemOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "-s",
        "--system",
        envvar="DGEMMA_SYSTEM",
        metavar="TEXT",
        help="System prompt: how to answer.",
        show_default=False,
    ),
]
MaxTokensOption: TypeAlias = Annotated[
    int,
    typer.Option(
        "-n", "--max-tokens", envvar="DGEMMA_MAX_TOKENS", metavar="N", help="Kept tokens of an answer at the most."
    ),
]
SeedOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--seed",
        envvar="DGEMMA_SEED",
        metavar="N",
        help="The same seed gives the same text.",
        show_default="random",
    ),
]
ThinkOption: TypeAlias = Annotated[
    bool, typer.Option("--think/--no-think", envvar="DGEMMA_THINK", help="Let the model think before it answers.")
]
DeviceOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--device",
        envvar="DGEMMA_DEVICE",
        metavar="auto|cpu|cuda[:N]",
        autocompletion=one_of("auto", "cpu", "cuda"),
        callback=checked_device,
        help="Where to compute.",
    ),
]
DtypeOption: TypeAlias = Annotated[
    Dtype,
    typer.Option(
        "--dtype", envvar="DGEMMA_DTYPE", help="Number format; auto is bfloat16, for small models on a CPU float32."
    ),
]
FitOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--fit",
        envvar="DGEMMA_FIT",
        metavar="auto|off|SIZE",
        help="A model that is too large: packed into fewer bits, then with experts in the host's memory; 16GB caps it.",
    ),
]
LiveOption: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--live/--no-live",
        envvar="DGEMMA_LIVE",
        help="Show the canvas while it settles.",
        show_default="on a terminal",
    ),
]
ShowThinkingOption: TypeAlias = Annotated[
    bool,
    typer.Option("--show-thinking/--fold-thinking", envvar="DGEMMA_SHOW_THINKING", help="Show thoughts in full."),
]
StatsOption: TypeAlias = Annotated[
    bool,
    typer.Option("--stats/--no-stats", envvar="DGEMMA_STATS", help="Print a line of figures after an answer."),
]
ServerOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--server/--no-server",
        envvar="DGEMMA_SERVER",
        help="Use a server on this machine that has the model warm (dgemma ps).",
    ),
]
KeepOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--keep",
        envvar="DGEMMA_KEEP",
        metavar="TIME",
        help="Leave the model warm in a server until it is idle so long: 90s, 10m, 2h.",
        show_default=False,
    ),
]
EndpointOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--endpoint",
        envvar="DGEMMA_ENDPOINT",
        metavar="URL",
        help="Ask a server that speaks OpenAI's API (its key: DGEMMA_API_KEY).",
        show_default=False,
    ),
]
YesOption: TypeAlias = Annotated[
    bool, typer.Option("-y", "--yes", help="Fetch a model that is not on this machine without asking.")
]
NoColorOption: TypeAlias = Annotated[bool, typer.Option("--no-color", help="No colours (NO_COLOR=1).")]
DebugOption: TypeAlias = Annotated[bool, typer.Option("--debug", help="Show where an error happened (DGEMMA_DEBUG=1).")]
