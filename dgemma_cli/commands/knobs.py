"""The sampler's options on the command line, the same for every command that writes text. Imports no torch."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

from dgemma_cli.commands.completing import one_of
from dgemma_cli.errors import UsageError
from dgemma_cli.sampling.presets import DEFAULT, PRESETS

_OWN = "the preset's or the model's"
_REFERENCE = "reference"

PresetOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--preset",
        envvar="DGEMMA_PRESET",
        metavar="|".join(PRESETS),
        autocompletion=one_of(*PRESETS),
        help="The sampler's policies.",
        show_default=DEFAULT,
    ),
]
SamplerOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--sampler",
        metavar=_REFERENCE,
        autocompletion=one_of(_REFERENCE),
        help="The checkpoint's own sampler, as --preset reference.",
        show_default=False,
    ),
]
StepsOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--steps", envvar="DGEMMA_STEPS", metavar="N", help="Most denoising steps a block.", show_default=_OWN
    ),
]
HorizonOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--horizon", envvar="DGEMMA_HORIZON", metavar="N", help="Steps over which it cools.", show_default=_OWN
    ),
]
TMinOption: TypeAlias = Annotated[
    float | None,
    typer.Option("--t-min", envvar="DGEMMA_T_MIN", metavar="T", help="Temperature at the end.", show_default=_OWN),
]
TMaxOption: TypeAlias = Annotated[
    float | None,
    typer.Option("--t-max", envvar="DGEMMA_T_MAX", metavar="T", help="Temperature at the start.", show_default=_OWN),
]
BoundOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--entropy-bound",
        envvar="DGEMMA_ENTROPY_BOUND",
        metavar="NATS",
        help="Doubt accepted in one step.",
        show_default=_OWN,
    ),
]
SpacingOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--spacing",
        envvar="DGEMMA_SPACING",
        metavar="N",
        help="Accept also what is surest within N positions.",
        show_default=_OWN,
    ),
]
StabilityOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--stability",
        envvar="DGEMMA_STABILITY",
        metavar="N",
        help="Steps a draft stays the same to be done.",
        show_default=_OWN,
    ),
]
ConfidenceOption: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--confidence",
        envvar="DGEMMA_CONFIDENCE",
        metavar="NATS",
        help="Mean entropy under which it is done.",
        show_default=_OWN,
    ),
]
BestOfOption: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--best-of",
        envvar="DGEMMA_BEST_OF",
        metavar="N",
        help="Write each block N times at once, keep the surest.",
        show_default=_OWN,
    ),
]
RepairOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--repair/--no-repair",
        envvar="DGEMMA_REPAIR",
        help="Write again what of a block has not settled, or loops.",
    ),
]
GuardOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--guard/--no-guard", envvar="DGEMMA_GUARD", help="Cut off text that only repeats itself, and say so."
    ),
]


def chosen(preset: str | None, sampler: str | None) -> str:
    """The preset that ``--preset`` and ``--sampler`` ask for. Raises UsageError if they ask for two."""
    if sampler is None:
        return DEFAULT if preset is None else preset
    if sampler != _REFERENCE:
        raise UsageError(
            f"There is no sampler {sampler!r}.", f"--sampler {_REFERENCE}, or --preset {'|'.join(PRESETS)}"
        )
    if preset not in (None, _REFERENCE):
        raise UsageError(
            f"--sampler {_REFERENCE} and the preset {preset} contradict each other.",
            f"--preset {_REFERENCE} wins over DGEMMA_PRESET and the settings file.",
        )
    return _REFERENCE
