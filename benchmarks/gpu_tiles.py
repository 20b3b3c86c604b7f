"""The section of ``gpu.py`` that measures what ``dgemma tune`` does: the kernels of a step in other tiles."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gpu_weights import published, random_model

from dgemma_cli.commands.tune import in_words, table
from dgemma_cli.engine.tuning import Measured, tune
from dgemma_cli.model.fused import FusedModel

if TYPE_CHECKING:
    from gpu_sections import Bench


def tiles(bench: Bench) -> None:
    """4-bit experts and 8-bit dense weights: microseconds a launch in each tile, then the table of ``dgemma tune``."""
    if bench.dry:
        bench.put(skipped="there are no tiles on a CPU")
        return
    config = published(False)
    few = replace(config, layers=config.layers[:12])  # 5 GB of experts, which no cache of the GPU holds
    model = random_model(few, "nvfp4+8bit", bench.device, bench.dtype)
    found: list[Measured] = []
    for each in tune(FusedModel(model, bench.operations(), bench.executor())):
        found.append(each)
        rows = [
            f"{each.use.name}, {in_words(each.use.kernel, cut)}: {taken:.1f} us"
            + (" (the usual one)" if cut == each.usual else "")
            for cut, taken in each.microseconds.items()
        ]
        rows += [f"{each.use.name}, {in_words(each.use.kernel, cut)}: {why}" for cut, why in each.dropped.items()]
        bench.put(tiles=[*bench.figures.get("tiles", []), *rows])
    bench.put(tiles=[*bench.figures.get("tiles", []), *table(found)])
