"""What Triton's kernels ask of a GPU and of a model, as far as it is known beforehand. Imports no torch."""

from __future__ import annotations

import os

from dgemma_cli.errors import UsageError
from dgemma_cli.model.config import ModelConfig

VARIABLE = "DGEMMA_KERNELS"
OLDEST = (8, 0)  # compute capability: bfloat16 in the tensor cores
_SIZES = 16
_HEADS = (16, 32, 64, 128, 256, 512)


def asked_kernels() -> str:
    """ "auto", "reference" or "triton", by the environment variable. Raises UsageError for anything else."""
    asked = os.environ.get(VARIABLE) or "auto"
    if asked not in ("auto", "reference", "triton"):
        raise UsageError(f"{VARIABLE} must be auto, reference or triton, not {asked!r}.")
    return asked


def foreseen_obstacle(capability: tuple[int, int], dtype: str, config: ModelConfig) -> str | None:
    """Why a model of this shape cannot have Triton's kernels on a GPU of this compute capability, if so. Whether they
    work there only a first one tells (``kernels.trial``).
    """
    if capability < OLDEST:
        return "the GPU's compute capability is {}.{}, below {}.{}".format(*capability, *OLDEST)
    if dtype != "bfloat16":
        return f"the dtype is {dtype}, not bfloat16"
    sizes = (config.hidden_size, config.intermediate_size, config.moe_intermediate_size)
    if any(size % _SIZES for size in sizes):
        return f"the model's sizes {sizes} are not all multiples of {_SIZES}"
    odd = [layer.head_dim for layer in config.layers if layer.head_dim not in _HEADS]
    if odd:
        return f"the model has heads of {odd[0]}, not of {', '.join(map(str, _HEADS))}"
    return None
