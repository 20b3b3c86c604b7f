"""Weights that stay packed: linear maps and experts that unpack some rows of a matrix at a time.

They take the place of ``nn.Linear`` and ``model.experts.Experts``, with the same forward passes. No full-size copy of
the weights ever exists. One file a format says how it is unpacked: ``nvfp4``, ``int4``, ``int8``, ``fp8``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_cli.kernels.crew import whole
from dgemma_cli.kernels.reference import gated, routed_experts
from dgemma_cli.kernels.scratch import Scratch, scratch


class Packed(nn.Module):
    """``count`` packed matrices, each of ``stack`` stored ones of [rows, columns], one above the other.

    Every buffer is [count, stack, *shape], where shape is that of one stored matrix: what the file holds is copied into
    its place as it is. shapes: name of a buffer -> (shape, dtype).
    """

    codes: Tensor

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

    def unpack(self, index: int, dtype: torch.dtype, rows: slice = slice(None)) -> Tensor:
        """Matrix ``index`` as numbers, or some rows of each stored one, [stack * rows, columns]: computed in float32,
        rounded once to ``dtype``.
        """
        first, last, _ = rows.indices(self.rows)
        found = torch.empty(self.stack, last - first, self.columns, dtype=dtype, device=self.device)
        for piece in self._pieces(first, last):
            found[:, piece.start - first : piece.stop - first] = self._values(index, piece, scratch(self.device))
        return found.flatten(0, 1)

    def tiles(self, index: int, dtype: torch.dtype, rows: slice = slice(None)) -> Iterator[Tensor]:
        """Matrix ``index`` for a product, some rows of each stored matrix at a time: [stack, n, columns].

        What ``unpack`` gives, but in bfloat16 float32 may have been rounded once more on the way: one value in tens of
        thousands is then the neighbour of what it would be. On a CPU there are as many rows as its caches hold, and a
        tile's memory is that of the next one, of whatever matrix, in the same thread: it is to be used before.
        """
        first, last, _ = rows.indices(self.rows)
        for piece in self._pieces(first, last):
            own = scratch(self.device)
            if dtype == torch.float32:
                yield self._values(index, piece, own)
            else:
                values = self._nearly(index, piece, own)
                yield own.take("rounded", tuple(values.shape), dtype).copy_(values)

    def _pieces(self, first: int, last: int) -> Iterator[slice]:
        """Rows to unpack at once."""
        size = last - first
        if self.device.type == "cpu":
            size = max(1, _TILE // (self.stack * self.columns))
        for begin in range(first, last, size):
            yield slice(begin, min(begin + size, last))

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def _values(self, index: int, rows: slice, scratch: Scratch) -> Tensor:
        """Float32 [stack, n, columns], in the scratch: some rows of every stored matrix."""
        raise NotImplementedError

    def _nearly(self, index: int, rows: slice, scratch: Scratch) -> Tensor:
        """The same, or what takes less time and may be rounded once more."""
        return self._values(index, rows, scratch)


# Values unpacked at once on a CPU: with fewer, calling the operations takes a good part of the time; with more, the
# caches no longer hold what passes between them.
_TILE = 2**19


class PackedLinear(nn.Module):
    """x @ W.T with W packed. matrix: one matrix, not stacked."""

    def __init__(self, matrix: Packed) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., columns] -> [..., rows]."""
        tiles = self.matrix.tiles(0, x.dtype)
        return whole([F.linear(x, tile.flatten(0, 1)) for tile in tiles], dim=-1)


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
        tiles = self.gate_up.tiles(expert, rows.dtype)
        inner = whole([gated(F.linear(rows, tile.flatten(0, 1))) for tile in tiles], dim=-1)
        tiles = self.down.tiles(expert, rows.dtype)
        return whole([F.linear(inner, tile[0]) for tile in tiles], dim=-1)
