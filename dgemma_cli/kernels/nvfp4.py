"""NVFP4: E2M1 values, a scale of FP8 for every 16 of them and one of float32 for the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_cli.kernels.bits import E2M1_UNIT, E4M3_UNIT, e2m1, e4m3, scaled
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.kernels.scratch import Scratch

GROUP = 16
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_PER_UNIT = torch.tensor(1 / E2M1_UNIT / E4M3_UNIT, device="cpu")


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

    def _values(self, index: int, rows: slice, scratch: Scratch) -> Tensor:
        codes, scale = self._parts(index, rows, scratch)
        values = scaled(codes, scale, scratch)  # exact: six significant bits at the most
        matrix_scale = self.matrix_scale[index].view(-1, 1, 1)
        return values.div_(matrix_scale) if self.divides else values.mul_(matrix_scale)

    def _nearly(self, index: int, rows: slice, scratch: Scratch) -> Tensor:
        """The two scales are multiplied first, which is one pass less over the values."""
        codes, scale = self._parts(index, rows, scratch)
        matrix_scale = self.matrix_scale[index].view(-1, 1, 1, 1)
        return scaled(codes, scale.div_(matrix_scale) if self.divides else scale.mul_(matrix_scale), scratch)

    def _parts(self, index: int, rows: slice, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Codes in their own unit, [stack, n, columns], and for these float32 [stack, n, columns / 16, 1]."""
        scale = e4m3(self.scale[index, :, rows, :, None], "scales", scratch).float().mul_(_PER_UNIT)
        return e2m1(self.codes[index, :, rows], scratch), scale
