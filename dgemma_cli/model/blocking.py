"""Decides once, after loading, whether a model's plain weights are laid out for the CPU's fast kernels."""

from __future__ import annotations

import torch
from torch import nn

from dgemma_cli.kernels import blocked
from dgemma_cli.model.experts import Experts
from dgemma_cli.model.model import Model


def block_weights(model: Model) -> None:
    """Replace linear maps and experts by blocked ones if ``model`` is bfloat16 on a CPU that has them.

    Says so in ``model.kernels``. Packed modules stay as they are. One module at a time gives its plain weight up, so
    memory grows by one layer's experts at the most. Afterwards the model has no gradients and no full ``state_dict``.
    """
    if model.device.type != "cpu" or model.dtype != torch.bfloat16 or not blocked.available():
        return
    config = model.config
    rows = max(1, config.canvas_length * config.top_k_experts // config.num_experts)
    for name in [name for name, _ in model.named_modules()]:  # names alone: a list of modules would keep all weights
        module = model.get_submodule(name)
        # The router stays: which experts are chosen must not hang on the kernel, and it is small.
        if isinstance(module, nn.Linear) and not name.endswith("router.proj"):
            model.set_submodule(name, blocked.BlockedLinear(module.weight))
        elif isinstance(module, Experts):
            model.set_submodule(name, blocked.BlockedExperts(module.gate_up_proj, module.down_proj, rows))
        del module
    model.kernels = "oneDNN blocked"
