"""NVFP4: E2M1 values, a scale of FP8 for every 16 of them and one of float32 for the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_cli.kernels.fp8 import E4M3
from dgemma_cli.kernels.packed import Packed, Table

GROUP = 16
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_TABLE = Table(E2M1, bits=4)


class NVFP4(Packed):
    """W[o, k] = E2M1[nibble] * scale[o, k // 16] * matrix_scale, or divided by it (``divides``), in that order.

    Buffers: codes, uint8 [rows, columns / 2], even columns in the low nibbles; scale, E4M3 [rows, columns / 16];
    matrix_scale, float32 of ``scale_shape``, () or (1,).
    """

    codes: Tensor
    scale: Tensor
    matrix_scale: Tensor

    def __init__(
        self, count: int, stack: int, rows: int, columns: int, divides: bool, scale_shape: tuple[int, ...]
    ) -> None:
        super().__init__(
            count,
            stack,
            rows,
            columns,
            {
                "codes": ((rows, columns // 2), torch.uint8),
                "scale": ((rows, columns // GROUP), torch.float8_e4m3fn),
                "matrix_scale": (scale_shape, torch.float32),
            },
        )
        self.divides = divides

    def _values(self, index: int, part: slice, rows: slice) -> Tensor:
        values = _TABLE.look_up(self.codes[index, part, rows])
        scale = E4M3.look_up(self.scale[index, part, rows])
        values.view(*scale.shape, GROUP).mul_(scale[..., None])  # exact: six significant bits at the most
        matrix_scale = self.matrix_scale[index, part].view(-1, 1, 1)
        return values.div_(matrix_scale) if self.divides else values.mul_(matrix_scale)
