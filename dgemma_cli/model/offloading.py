"""Lets the last layers of a loaded model fetch their experts from the host's memory."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from dgemma_cli.kernels.offload import PLACES, Copier, Ferry, OffloadedExperts
from dgemma_cli.model.model import Model


def offload(model: Model, count: int, copier: Copier) -> None:
    """Replace the experts of the last ``count`` layers, which are in the host's memory, by ones that are copied to the
    model's device when their turn comes. Says so in ``model.kernels``. Raises ValueError if their formats differ.
    """
    layers: list[Any] = [*model.stack.layers][len(model.stack.layers) - count :]
    kept: list[nn.Module] = [layer.experts for layer in layers]
    places = [copy.deepcopy(kept[0]).to(model.device) for _ in range(PLACES)]
    ferry = Ferry(kept, places, copier)
    model.stack.ferry = ferry
    for turn, layer in enumerate(layers):
        layer.experts = OffloadedExperts(kept[turn], ferry, turn)
    model.kernels += f", experts of {count} layers in the host's memory"
