"""Decides once, after loading, whether a model's plain weights are laid out for the CPU's fast kernels."""

from __future__ import annotations

import torch
from torch import nn

from dgemma_cli.kernels import blocked
from dgemma_cli.model.experts import MLP, Experts
from dgemma_cli.model.model import Model

_WORTH_A_CREW = 2**17  # values in a canvas's residual stream: with fewer, meeting takes longer than computing


def block_weights(model: Model) -> None:
    """Replace linear maps and experts by blocked ones if ``model`` is bfloat16 on a CPU that has them.

    Says so in ``model.kernels``. Packed modules stay as they are. One module at a time gives its plain weight up, so
    memory grows by one layer's experts at the most. Afterwards the model has no gradients and no full ``state_dict``.
    """
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or not blocked.available():
        return
    config = model.config
    rows = max(1, config.canvas_length * config.top_k_experts // config.num_experts)
    replaced = "-"
    for name in [name for name, _ in model.named_modules()]:  # names alone: a list of modules would keep all weights
        if name.startswith(f"{replaced}."):
            continue
        if (made := _blocked(model.get_submodule(name), name, rows)) is not None:
            model.set_submodule(name, made)
            replaced = name
    model.kernels = "oneDNN blocked"
    model.crewed = config.canvas_length * config.hidden_size >= _WORTH_A_CREW


def _blocked(module: nn.Module, name: str, rows: int) -> nn.Module | None:
    """What takes the place of a module, if anything does. rows: how many tokens an expert gets in a step, about."""
    if isinstance(module, MLP):
        gate_up, down = module.gate_up_proj, module.down_proj
        plain = isinstance(gate_up, nn.Linear) and isinstance(down, nn.Linear)
        return blocked.BlockedMLP(gate_up.weight, down.weight) if plain else None
    # The router stays: which experts are chosen must not hang on the kernel, and it is small.
    if isinstance(module, nn.Linear) and not name.endswith("router.proj"):
        return blocked.BlockedLinear(module.weight)
    if isinstance(module, Experts):
        return blocked.BlockedExperts(module.gate_up_proj, module.down_proj, rows)
    return None
