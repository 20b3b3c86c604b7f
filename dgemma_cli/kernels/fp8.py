"""FP8: E4M3 values with a scale for every output channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dgemma_cli.kernels.bits import E4M3_UNIT, e4m3, e4m3_in_bfloat16, scaled
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.kernels.packed_expert import Room, Stored, expert_with, room
from dgemma_cli.kernels.scratch import Scratch

_PER_UNIT = torch.tensor(1 / E4M3_UNIT, device="cpu")


def decode(codes: Tensor, scale: Tensor, factor: Tensor, out: Tensor, words: Tensor, held: list[Tensor]) -> None:
    """See ``packed_expert.decode``. The codes, exact, as in ``bits.e4m3_in_bfloat16``."""
    count = codes.numel()
    words[:count].view_as(codes).copy_(codes)
    words[:count].bitwise_left_shift_(4).bitwise_and_(-30736)
    out[:count].mul_(2.0**120)


class FP8(Packed):
    """W[o, k] = codes[o, k] * scale[o].

    Buffers: codes, E4M3 [rows, columns]; scale, float32 [rows, 1].
    """

    run_expert = staticmethod(expert_with(decode))
    scales_products = True

    codes: Tensor
    scale: Tensor

    def __init__(self, count: int, stack: int, rows: int, columns: int) -> None:
        super().__init__(
            count,
            stack,
            rows,
            columns,
            {"codes": ((rows, columns), torch.float8_e4m3fn), "scale": ((rows, 1), torch.float32)},
        )

    def stored(self, index: int) -> Stored:
        every = slice(0, self.rows)
        (codes,), (scale,) = self._stored("codes", [index], every, torch.int8), self._stored("scale", [index], every)
        return Stored(codes, scale, scale)

    def room(self, most: int, scratch: Scratch) -> Room:
        return room(scratch, most, torch.int16, [])

    def _fill(
        self, indices: Sequence[int], rows: slice, scratch: Scratch, dtype: torch.dtype
    ) -> tuple[str, Sequence[Tensor | None]]:
        """In bfloat16 the codes as they are, which is exact; the scales are factors of the products."""
        if dtype != torch.bfloat16:
            return super()._fill(indices, rows, scratch, dtype)
        shape = tuple(self._fetch("codes", indices, rows, scratch, torch.int16, torch.int8).shape)
        e4m3_in_bfloat16("codes", shape, scratch)
        return "codes", [scale.flatten() for scale in self._stored("scale", indices, rows)]

    def _values(self, indices: Sequence[int], rows: slice, scratch: Scratch) -> Tensor:
        shape = tuple(self._fetch("codes", indices, rows, scratch, torch.int16, torch.int8).shape)
        scale = self._fetch("scale", indices, rows, scratch, torch.float32).mul_(_PER_UNIT)
        return scaled(e4m3("codes", shape, scratch), scratch.take("scale", (*scale.shape, 1), torch.float32), scratch)
