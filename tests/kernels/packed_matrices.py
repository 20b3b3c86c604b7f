"""Random matrices in every format that the weight-bound kernels read, and what they are in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dgemma_cli.kernels.fp8 import FP8
from dgemma_cli.kernels.int4 import Int4
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.nvfp4 import NVFP4
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.kernels.words import Matrices

Maker = Callable[[int, int, int, int], Matrices]  # count, stack, rows, columns


def _numbers(like: Tensor, low: float, high: float) -> Tensor:
    return (torch.rand(like.shape, generator=_generator(like)) * (high - low) + low).to(like.dtype)


def _bits(like: Tensor) -> Tensor:
    """Every code there is."""
    raw = torch.randint(0, 256, like.view(torch.uint8).shape, generator=_generator(like), dtype=torch.uint8)
    return raw.view(like.dtype)


def _generator(like: Tensor) -> torch.Generator:
    return torch.Generator().manual_seed(like.numel())


def nvfp4(divides: bool) -> Maker:
    def make(count: int, stack: int, rows: int, columns: int) -> NVFP4:
        made = NVFP4(count, stack, rows, columns, divides, (1,) if divides else ())
        made.codes = _bits(made.codes)
        made.scale = _numbers(made.scale.float(), 0, 4).to(made.scale.dtype)
        made.scale.view(torch.uint8).view(-1)[::7] = torch.arange(len(made.scale.view(-1)[::7]), dtype=torch.uint8) % 64
        made.matrix_scale = _numbers(made.matrix_scale, 0.5, 3)
        return made

    return make


def whole_numbers(kind: type[Int4] | type[Int8], scale_dtype: torch.dtype) -> Maker:
    def make(count: int, stack: int, rows: int, columns: int) -> Packed:
        made = kind(count, stack, rows, columns, scale_dtype)
        made.codes = _bits(made.codes)
        made.scale = _numbers(made.scale, 0.01, 0.3)
        return made

    return make


def fp8(count: int, stack: int, rows: int, columns: int) -> FP8:
    made = FP8(count, stack, rows, columns)
    codes = _bits(made.codes).view(torch.uint8)
    codes[(codes & 127) == 127] = 0  # two codes are no numbers
    made.codes = codes.view(made.codes.dtype)
    made.scale = _numbers(made.scale, -0.1, 0.1)
    return made


def plain(count: int, stack: int, rows: int, columns: int) -> Tensor:
    generator = torch.Generator().manual_seed(rows)
    return torch.randn(count, stack * rows, columns, generator=generator).bfloat16()


FORMATS: dict[str, Maker] = {
    "nvfp4": nvfp4(False),
    "nvfp4 that divides": nvfp4(True),
    "int4": whole_numbers(Int4, torch.float16),
    "int4 of bfloat16 scales": whole_numbers(Int4, torch.bfloat16),
    "int8": whole_numbers(Int8, torch.float16),
    "fp8": fp8,
    "bf16": plain,
}
GROUPS = {"nvfp4": 16, "int4": 32, "int8": 64, "fp8": 2, "bf16": 1}


def group(name: str) -> int:
    """How many columns of a format share a scale: columns come in multiples of it."""
    return GROUPS[name.split()[0]]


def numbers(matrix: Matrices) -> Tensor:
    """float64 [count, rows, columns], on the CPU. Whole numbers with a scale become bfloat16 before they are used, as
    in the reference; the other formats need no rounding.
    """
    if isinstance(matrix, Tensor):
        return matrix.cpu().double()
    dtype = torch.bfloat16 if isinstance(matrix, Int4 | Int8) else torch.float64
    return torch.stack([matrix.cpu().unpack(index, dtype).double() for index in range(matrix.count)])
