"""NVFP4: E2M1 values, a scale of FP8 for every 16 of them and one of float32 for the matrix."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_cli.kernels.bits import E2M1_UNIT, E4M3_UNIT, e2m1, e4m3, look_up, quads, scaled
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.kernels.packed_expert import Room, Stored, expert_with, looking_up, room
from dgemma_cli.kernels.scratch import Scratch

GROUP = 16
E2M1 = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
_PER_UNIT = torch.tensor(1 / E2M1_UNIT / E4M3_UNIT, device="cpu")


def decode(codes: Tensor, scale: Tensor, factor: Tensor, out: Tensor, words: Tensor, held: list[Tensor]) -> None:
    """See ``packed_expert.decode``. What ``NVFP4._nearly`` gives, rounded."""
    table, places, wide, bits, half, both = held
    count = scale.numel()
    # As in ``bits.e4m3``: a float16 has one bit of exponent more than E4M3, and its bits in the same order.
    bits[:count].view_as(scale).copy_(scale)
    bits[:count].bitwise_left_shift_(7).bitwise_and_(-16512)
    scales = both[:count].copy_(half[:count]).view(scale.shape[0], -1)
    scales.mul_(256 * factor.view(-1, 1))
    look_up(codes, scales.view(-1), table, out, words, places, wide)


class NVFP4(Packed):
    """W[o, k] = E2M1[nibble] * scale[o, k // 16] * matrix_scale, or divided by it (``divides``), in that order.

    Buffers: codes, uint8 [rows, columns / 2], even columns in the low nibbles; scale, E4M3 [rows, columns / 16];
    matrix_scale, float32 of ``scale_shape``, () or (1,).
    """

    run_expert = staticmethod(expert_with(decode))

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

    def stored(self, index: int) -> Stored:
        every = slice(0, self.rows)
        (codes,), (scale,) = (
            self._stored("codes", [index], every, torch.uint16),
            self._stored("scale", [index], every, torch.int8),
        )
        factor = self.matrix_scale[index]
        return Stored(codes, scale, factor.reciprocal() if self.divides else factor)

    def room(self, most: int, scratch: Scratch) -> Room:
        groups = (most // GROUP,)
        half, bits = (scratch.take("scale", groups, dtype) for dtype in (torch.float16, torch.int16))
        both = scratch.take("scales", groups, torch.float32)
        return room(scratch, most, torch.int64, [quads(E2M1), *looking_up(scratch), bits, half, both])

    def _values(self, indices: Sequence[int], rows: slice, scratch: Scratch) -> Tensor:
        codes, scale = self._parts(indices, rows, scratch)
        values = scaled(codes, scale, scratch)  # exact: six significant bits at the most
        return self._apply_matrix_scale(values, indices)

    def _nearly(self, indices: Sequence[int], rows: slice, scratch: Scratch) -> Tensor:
        """The two scales are multiplied first, which is one pass less over the values."""
        codes, scale = self._parts(indices, rows, scratch)
        return scaled(codes, self._apply_matrix_scale(scale, indices), scratch)

    def _parts(self, indices: Sequence[int], rows: slice, scratch: Scratch) -> tuple[Tensor, Tensor]:
        """Codes in their own unit, [..., n, columns], and for these float32 [..., n, columns / 16, 1]."""
        shape = tuple(self._fetch("scale", indices, rows, scratch, torch.int16, torch.int8).shape)
        half = e4m3("scale", shape, scratch)
        scratch.take("scales", shape, torch.float32).copy_(half).mul_(_PER_UNIT)
        codes = tuple(self._fetch("codes", indices, rows, scratch, torch.int16, torch.uint8).shape)
        return e2m1("codes", codes, scratch), scratch.take("scales", (*shape, 1), torch.float32)

    def _apply_matrix_scale(self, to: Tensor, indices: Sequence[int]) -> Tensor:
        """In place. to: [len(indices), stack, ...]."""
        found = torch.stack([self.matrix_scale[index] for index in indices])
        found = found.view(len(indices), self.stack, *[1] * (to.dim() - 2))
        return to.div_(found) if self.divides else to.mul_(found)
