"""Decides once, after loading, what computes a model, and says so in ``model.kernels``."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec

import torch

from dgemma_cli.errors import NoDevice, UsageError
from dgemma_cli.model.blocking import block_weights
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Graphs

VARIABLE = "DGEMMA_KERNELS"
_OLDEST = (8, 0)  # compute capability: bfloat16 in the tensor cores
_SIZES = 16
_HEADS = (16, 32, 64, 128, 256, 512)


def asked_kernels() -> str:
    """ "auto", "reference" or "triton", by the environment variable. Raises UsageError for anything else."""
    asked = os.environ.get(VARIABLE) or "auto"
    if asked not in ("auto", "reference", "triton"):
        raise UsageError(f"{VARIABLE} must be auto, reference or triton, not {asked!r}.")
    return asked


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
    if find_spec("triton") is None:
        return "Triton is not installed"
    capability = torch.cuda.get_device_capability(model.device)
    if capability < _OLDEST:
        return "the GPU's compute capability is {}.{}, below {}.{}".format(*capability, *_OLDEST)
    if model.dtype != torch.bfloat16:
        return f"the dtype is {str(model.dtype).removeprefix('torch.')}, not bfloat16"
    config = model.config
    sizes = (config.hidden_size, config.intermediate_size, config.moe_intermediate_size)
    if any(size % _SIZES for size in sizes):
        return f"the model's sizes {sizes} are not all multiples of {_SIZES}"
    odd = [layer.head_dim for layer in config.layers if layer.head_dim not in _HEADS]
    if odd:
        return f"the model has heads of {odd[0]}, not of {', '.join(map(str, _HEADS))}"
    from dgemma_cli.kernels.trial import trial

    return trial(model.device)
