"""The section of ``gpu.py`` that tries other tiles for the experts' products, for whoever goes on tuning."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import gpu_measure as measure
import torch
from gpu_weights import published, random_model

from dgemma_cli.model.programs import Graphs

if TYPE_CHECKING:
    from gpu_sections import Bench


def tiles(bench: Bench) -> None:
    """Other tiles for the experts' products, of 4-bit weights: microseconds a layer."""
    if bench.dry:
        bench.put(skipped="there are no tiles on a CPU")
        return
    from dgemma_cli.kernels.grouped import routed_products
    from dgemma_cli.kernels.operations import expert_matrices
    from dgemma_cli.kernels.tiles import Tile, tile, using

    config = published(False)
    few = replace(config, layers=config.layers[:12])  # 5 GB of weights, which no cache of the GPU holds
    model = random_model(few, "nvfp4", bench.device, bench.dtype)
    layers = [expert_matrices(layer.get_submodule("experts")) for layer in model.stack.layers]
    x = torch.randn(config.canvas_length, config.hidden_size, dtype=bench.dtype, device=bench.device)
    scores = torch.rand(config.canvas_length, config.num_experts, device=bench.device)
    scores[:, 84:] = 0
    weights, experts = scores.topk(config.top_k_experts)

    def all_layers() -> None:
        for gate_up, down in layers:
            routed_products(x, weights, experts, gate_up, down)

    usual = tile("grouped", 4)
    tried = [usual] + [
        Tile(rows, step, warps, stages)
        for rows, warps in ((64, 4), (128, 4), (128, 8))
        for step in (32, 64)
        for stages in (3, 4, 5)
    ]
    for each in dict.fromkeys(tried):
        with bench.part(str(each)), using("grouped", 4, each):
            graph = Graphs(bench.device).record(all_layers)
            (taken,) = measure.milliseconds(bench.device, [graph], 10)
            row = f"{each}: {taken * 1000 / len(layers):.1f} us"
            bench.put(tiles=[*bench.figures.get("tiles", []), row + (" (the table's)" if each == usual else "")])
