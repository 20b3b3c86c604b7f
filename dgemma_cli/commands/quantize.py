"""``dgemma quantize``: a checkpoint with fewer bits, written as a checkpoint."""

from __future__ import annotations

import json
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgemma_cli.catalog.names import completions
from dgemma_cli.commands.options import DeviceOption
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.units import size

if TYPE_CHECKING:
    from dgemma_cli.weights.repack import Losses


class FourBits(StrEnum):
    """Formats of the experts."""

    NVFP4 = "nvfp4"
    INT4 = "int4"


class Dense(StrEnum):
    """What becomes of the weights that are no experts'."""

    STORED = "stored"
    EIGHT = "8bit"
    FOUR = "4bit"


def quantize(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SRC", autocompletion=completions, help="A model's name, a Hugging Face id, or a folder."
        ),
    ],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write; it must not exist.")],
    format: Annotated[FourBits, typer.Option("--format", help="Format of the experts.")] = FourBits.NVFP4,
    dense: Annotated[
        Dense,
        typer.Option(
            "--dense", help="Attention and MLP: as stored, or packed too; the embedding then has 8 bits in both cases."
        ),
    ] = Dense.STORED,
    device: DeviceOption = "auto",
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress, no report.")] = False,
) -> None:
    """Write a model with fewer bits, for less memory.

    Scales are searched for least squared error. What has no more bits already stays as it is. Other tools read the
    result too: it is in the layout of compressed-tensors.
    """
    environment = Environment.current()
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists already.", "Name a folder that does not, or remove it first.")
    from dgemma_cli.catalog.resolve import resolve

    location = resolve(source)

    from dgemma_cli.commands.pull_bar import watched
    from dgemma_cli.device import choose  # torch, a second or two
    from dgemma_cli.weights.recipe import recipe
    from dgemma_cli.weights.repack import Losses
    from dgemma_cli.weights.writer import draft, write

    chosen = recipe(format.value, None if dense is Dense.STORED else dense.value)
    planned = draft(location.folder, chosen)
    where = choose(device, "auto", location.folder).device
    if not quiet:
        environment.say(f"{location.name}: {chosen}; {size(planned.size)}, computed on {where}")
    losses = Losses()
    with watched(environment, planned.read, 0, quiet) as report:
        write(planned, target, where, lambda done, _total: report(source, done), losses)
    if json_output:
        fields = {"model": location.name, "folder": str(target), "size": planned.size, "device": where}
        environment.write(json.dumps({**fields, "errors": as_list(losses)}, indent=2) + "\n")
    if not quiet:
        for line in table(losses):
            environment.say(line)
        environment.say(f'{target} is ready: dgemma run -m {_typed(target)} "Why is the sky blue?"')


def _typed(folder: Path) -> str:
    """As one names a folder to a command, so that it is not taken for a name of the catalog."""
    return shlex.quote(str(folder) if folder.is_absolute() or str(folder).startswith("..") else f"./{folder}")


def as_list(losses: Losses) -> list[dict[str, Any]]:
    """The errors for programs: layer (None for what belongs to none), part, relative error."""
    return [
        {"layer": layer if layer >= 0 else None, "part": part, "error": round(loss.relative, 6)}
        for (layer, part), loss in sorted(losses.by_part.items())
    ]


def table(losses: Losses) -> list[str]:
    """The errors for people: a row a layer, a column a part; root mean squares, relative to the weights'."""
    totals = losses.parts()
    width = max(len(part) for part in totals) + 2
    lines = ["error   " + "".join(f"{part:>{width}}" for part in totals)]
    for layer in sorted({layer for layer, _ in losses.by_part}):
        name = f"layer {layer}" if layer >= 0 else "no layer"
        cells = [losses.by_part.get((layer, part)) for part in totals]
        lines.append(f"{name:<8}" + "".join(f"{f'{cell.relative:.2%}' if cell else '':>{width}}" for cell in cells))
    lines.append(f"{'in all':<8}" + "".join(f"{f'{loss.relative:.2%}':>{width}}" for loss in totals.values()))
    return lines
