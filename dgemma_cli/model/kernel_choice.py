"""Decides once, after loading, what computes a model, and says so in ``model.kernels``."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch

from dgemma_cli.errors import NoDevice, UsageError
from dgemma_cli.model.blocking import block_weights
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.kernel_terms import VARIABLE, foreseen_obstacle
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Graphs


def choose_kernels(model: Model, asked: str, tell: Callable[[str], None] | None = None) -> Model:
    """``model`` on the kernels for its device; it must not be used itself any more.

    asked: "reference" is plain torch; "triton" is CUDA's kernels, or a NoDevice or UsageError where they cannot be had;
    "auto" is those on CUDA, if they can be had, and the blocked products of oneDNN on a CPU. tell: is told in a line
    if a GPU does without its kernels.
    """
    if asked == "reference":
        model.kernels += f", as {VARIABLE} asks"
        return model
    obstacle = _obstacle(model)
    if obstacle is None:
        from dgemma_cli.kernels.fast import FastOperations

        return FusedModel(model, FastOperations(), Graphs(model.device))
    if asked == "triton":
        error = NoDevice if model.device.type != "cuda" else UsageError
        raise error(
            f"{VARIABLE} asks for Triton's kernels, but {obstacle}.", f"Unset {VARIABLE}, or set it to reference."
        )
    if model.device.type == "cuda":
        model.kernels += f": {obstacle}"
        if tell is not None:
            tell(f"slower: plain torch computes instead of Triton's kernels, since {obstacle}")
    block_weights(model)
    return model


def _obstacle(model: Model) -> str | None:
    """Why the model cannot have Triton's kernels, if so."""
    if model.device.type != "cuda":
        return "the model is on the CPU"
    if torch.version.hip is not None:
        return "this torch is built for AMD's GPUs, and the kernels are written for NVIDIA's"
    if find_spec("triton") is None:
        return "Triton is not installed"
    dtype = str(model.dtype).removeprefix("torch.")
    foreseen = foreseen_obstacle(torch.cuda.get_device_capability(model.device), dtype, model.config)
    if foreseen is not None:
        return foreseen
    from dgemma_cli.kernels.trial import trial

    return trial(model.device)
