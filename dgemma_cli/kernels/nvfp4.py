"""NVFP4: E2M1 values, a scale of FP8 for every 16 of them and one of float32 for the matrix."""

from __future__ import annotations

import torch
from torch import Tensor

from dgemma_cli.kernels.bits import E2M1_UNIT, E4M3_UNIT, e2m1, e4m3
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
        values = self._scaled(index, rows, self._scale(index, rows, scratch), scratch)
        return self._by_matrix_scale(values, index)  # what it takes is exact: six significant bits at the most

    def _nearly(self, index: int, rows: slice, scratch: Scratch) -> Tensor:
        """The two scales are multiplied first, which is one pass less over the values."""
        scale = self._by_matrix_scale(self._scale(index, rows, scratch), index)
        return self._scaled(index, rows, scale, scratch)

    def _scale(self, index: int, rows: slice, scratch: Scratch) -> Tensor:
        """Float32 [stack, n, columns / 16], for codes in their own unit."""
        return e4m3(self.scale[index, :, rows], "scales", scratch).float().mul_(_PER_UNIT)

    def _by_matrix_scale(self, numbers: Tensor, index: int) -> Tensor:
        matrix_scale = self.matrix_scale[index].view(-1, 1, 1)
        return numbers.div_(matrix_scale) if self.divides else numbers.mul_(matrix_scale)

    def _scaled(self, index: int, rows: slice, scale: Tensor, scratch: Scratch) -> Tensor:
        codes = e2m1(self.codes[index, :, rows], scratch)
        values = scratch.take("values", tuple(codes.shape), torch.float32).copy_(codes)
        values.view(*scale.shape, GROUP).mul_(scale[..., None])
        return values
