"""Weights that stay packed: linear maps and experts that unpack one matrix, or one expert, at a time.

They take the place of ``nn.Linear`` and ``model.experts.Experts``, with the same forward passes. No full-size copy of
the weights ever exists. One file a format says how it is unpacked: ``nvfp4``, ``int4``, ``int8``, ``fp8``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_cli.kernels.reference import gated, routed_experts


class Packed(nn.Module):
    """``count`` packed matrices, each of ``stack`` stored ones of [rows, columns], one above the other.

    Every buffer is [count, stack, *shape], where shape is that of one stored matrix: what the file holds is copied into
    its place as it is. shapes: name of a buffer -> (shape, dtype).
    """

    def __init__(
        self,
        count: int,
        stack: int,
        rows: int,
        columns: int,
        shapes: Mapping[str, tuple[tuple[int, ...], torch.dtype]],
    ) -> None:
        super().__init__()
        self.count, self.stack, self.rows, self.columns = count, stack, rows, columns
        for name, (shape, dtype) in shapes.items():
            self.register_buffer(name, torch.empty(count, stack, *shape, dtype=dtype))

    def unpack(self, index: int, dtype: torch.dtype) -> Tensor:
        """Matrix ``index`` as numbers, [stack * rows, columns]: computed in float32, rounded once to ``dtype``."""
        found = torch.empty(self.stack, self.rows, self.columns, dtype=dtype, device=self.device)
        whole, tile = slice(None), self.rows
        parts = [whole]
        if found.device.type == "cpu" and found.numel() > _TILE:
            parts, tile = [slice(part, part + 1) for part in range(self.stack)], max(1, _TILE // self.columns)
        for part in parts:
            for first in range(0, self.rows, tile):
                rows = slice(first, first + tile)
                found[part, rows] = self._values(index, part, rows)
        return found.view(self.stack * self.rows, self.columns)

    @property
    def device(self) -> torch.device:
        return next(self.buffers()).device

    def _values(self, index: int, part: slice, rows: slice) -> Tensor:
        """Float32 [p, n, columns]: some rows of some stored matrices."""
        raise NotImplementedError


# Values unpacked at once on a CPU, if a matrix has more: with fewer, calling the operations takes as long as they do;
# with more, the caches no longer hold what passes between them.
_TILE = 2**18


class Table:
    """What every group of bits of 8 or 16 stands for, looked up whole: the values of one group move as one word.

    values: what each code stands for, exact in bfloat16; bits: of a code, 4 or 8, the first in the lowest bits.
    """

    def __init__(self, values: Sequence[float], bits: int) -> None:
        table = torch.tensor(values, dtype=torch.bfloat16, device="cpu")
        pair = torch.arange(2**16, device="cpu")
        codes = [(pair >> shift) & (2**bits - 1) for shift in range(0, 16, bits)]
        self._count = len(codes)
        word = {2: torch.int32, 4: torch.int64}[self._count]
        self._words = torch.stack([table[code] for code in codes], dim=-1).view(word)[:, 0]

    def look_up(self, codes: Tensor) -> Tensor:
        """Whatever holds an even number of bytes, [..., m] -> float32 [..., columns]."""
        # On a little-endian machine the first of two bytes is the lower one.
        places = codes.view(torch.int16).flatten().int().bitwise_and_(0xFFFF)
        if self._words.device != codes.device:
            self._words = self._words.to(codes.device)
        return self._words.index_select(0, places).view(torch.bfloat16).view(*codes.shape[:-1], -1).float()


class PackedLinear(nn.Module):
    """x @ W.T with W packed. matrix: one matrix, not stacked."""

    def __init__(self, matrix: Packed) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., columns] -> [..., rows]."""
        return F.linear(x, self.matrix.unpack(0, x.dtype))


class StackedLinear(nn.Module):
    """Linear maps of one input, their outputs side by side: for a fused projection whose parts are packed apart."""

    def __init__(self, parts: Sequence[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., columns] -> [..., rows of all parts]."""
        return torch.cat([part(x) for part in self.parts], dim=-1)


class PackedExperts(nn.Module):
    """The experts of a layer. gate_up: a stack of gate and up for each expert; down: one matrix each."""

    def __init__(self, gate_up: Packed, down: Packed) -> None:
        super().__init__()
        self.gate_up = gate_up
        self.down = down

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x: [N, hidden]; weights, experts: [N, top_k]. Returns [N, hidden]."""
        return routed_experts(x, weights, experts, self.down.count, self._run)

    def _run(self, expert: int, rows: Tensor) -> Tensor:
        inner = gated(F.linear(rows, self.gate_up.unpack(expert, rows.dtype)))
        return F.linear(inner, self.down.unpack(expert, rows.dtype))
