"""``dgemma tune``: in which tiles the GPU's kernels are fastest on this card."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgemma_cli.commands.option_checks import given
from dgemma_cli.commands.options import DebugOption, DeviceOption, FitOption, ModelOption
from dgemma_cli.errors import DiskError, NoDevice, UsageError
from dgemma_cli.terminal.environment import Environment

if TYPE_CHECKING:
    from dgemma_cli.engine.tuning import Measured
    from dgemma_cli.kernels.cuts import Cut
    from dgemma_cli.model.kernel_uses import Use


def tune(
    context: typer.Context,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    fit: FitOption = "auto",
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was measured, on every card.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    debug: DebugOption = False,
) -> None:
    """Measure in which tiles this GPU is fastest, and remember them.

    Its kernels take the model's weights a tile at a time; how large one is best hangs on the card. It takes some
    minutes, most of them for the compiler. From the next start on the model works in the fastest ones.
    """
    if debug:
        os.environ["DGEMMA_DEBUG"] = "1"
    environment = Environment.current()
    if reset:
        _reset(context, environment)
        return
    from dgemma_cli.commands.default_model import default_model
    from dgemma_cli.fit import parse_fit
    from dgemma_cli.model.kernel_terms import VARIABLE, asked_kernels

    wanted = parse_fit(fit)
    if asked_kernels() == "reference":
        raise UsageError(f"{VARIABLE}=reference leaves no kernels to measure.", f"Unset {VARIABLE}.")
    if device == "cpu":
        raise UsageError("A CPU's kernels work in no tiles that could be measured.", "dgemma tune is for GPUs.")
    name = model or default_model(environment, quiet=json_output)

    from dgemma_cli.device import choose_for  # torch, a second or two

    chosen = choose_for(device, "auto", 0)
    if chosen.device == "cpu":
        raise NoDevice(
            f"There are no tiles to measure on a CPU ({chosen.why_device}).", "dgemma tune is for GPUs: see nvidia-smi."
        )
    from dgemma_cli.commands.loading import load_session

    session = load_session(name, device, "auto", None, wanted, environment.say)

    from dgemma_cli.engine import tuning
    from dgemma_cli.engine.keys import card
    from dgemma_cli.engine.tiles import remember_tiles

    def begin(use: Use) -> None:
        environment.say(f"{use.name}: {len(use.cuts)} tiles", dim=True)

    found = list(tuning.tune(session.model, begin))
    # Only now, when all is known: who interrupts it keeps what was remembered before.
    if not remember_tiles(session.model.device, {each.use.name: each.chosen for each in found}):
        raise DiskError("The tiles cannot be remembered: the cache folder cannot be written.")
    for line in _dropped(found):
        environment.say(line, dim=True)
    if json_output:
        fields = {"model": session.name, "device": str(session.model.device), "card": card(session.model.device)[0]}
        environment.write(json.dumps({**fields, **_as_dict(found)}, indent=2) + "\n")
        return
    environment.write("".join(f"{line}\n" for line in table(found)))
    environment.say("Remembered. What is loaded from now on works in them; a server that runs keeps its tiles.")


def _reset(context: typer.Context, environment: Environment) -> None:
    from dgemma_cli.engine import remembered  # imports no torch

    for option in ("model", "device", "json_output"):
        if given(context, option):
            raise UsageError(f"--reset forgets all that was measured: it takes no --{option.removesuffix('_output')}.")
    try:
        count = remembered.clear(remembered.TILES)
    except OSError as error:
        raise DiskError(f"The tiles cannot be forgotten: {error.strerror}.") from None
    environment.say("Forgotten: the usual tiles are back." if count else "No tiles are remembered.")


def table(found: Sequence[Measured]) -> list[str]:
    """For people: a row a use, and what a step gains."""
    rows = [("KERNEL", "A STEP", "BEFORE", "AFTER", "TILE")]
    for each in found:
        tile = in_words(each.use.kernel, each.chosen)
        same = " (the usual one)" if each.chosen == each.usual else ""
        times = f"{each.before:.1f} us", f"{each.after:.1f} us"
        rows.append((each.use.name, f"{each.use.launches} x", *times, tile + same))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = ["  ".join([*map(str.ljust, row, widths), row[-1]]) for row in rows]
    before, after = _step(found)
    return [*lines, f"a step's products and attention: {before:.2f} ms before, {after:.2f} ms after"]


def in_words(kernel: str, cut: Cut) -> str:
    """A cut: "128 x 32, 4 warps, 3 stages"."""
    rows, step, warps, stages, *parts = cut
    words = f"{rows} x {step}, {warps} warps, {stages} stages"
    return f"{words}, {parts[0]} parts" if kernel == "attention" else words


def _step(found: Sequence[Measured]) -> tuple[float, float]:
    """Milliseconds a denoising step, before and after."""
    before = sum(each.use.launches * each.before for each in found) / 1000
    return before, sum(each.use.launches * each.after for each in found) / 1000


def _dropped(found: Sequence[Measured]) -> list[str]:
    return [
        f"not used: {each.use.name} in {in_words(each.use.kernel, cut)}: {why}"
        for each in found
        for cut, why in each.dropped.items()
    ]


def _as_dict(found: Sequence[Measured]) -> dict[str, Any]:
    before, after = _step(found)
    kernels = [
        {
            "use": each.use.name,
            "launches": each.use.launches,
            "before_us": round(each.before, 2),
            "after_us": round(each.after, 2),
            "usual": list(each.usual),
            "tile": list(each.chosen),
            "measured": [{"tile": list(cut), "us": round(taken, 2)} for cut, taken in each.microseconds.items()],
            "dropped": [{"tile": list(cut), "why": why} for cut, why in each.dropped.items()],
        }
        for each in found
    ]
    return {"before_ms": round(before, 3), "after_ms": round(after, 3), "kernels": kernels}
