"""Weights that stay packed: linear maps and experts that unpack some rows of a matrix at a time.

They take the place of ``nn.Linear`` and ``model.experts.Experts``, with the same forward passes. No full-size copy of
the weights ever exists. One file a format says how it is unpacked: ``nvfp4``, ``int4``, ``int8``, ``fp8``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_cli.kernels import blocked
from dgemma_cli.kernels.crew import whole
from dgemma_cli.kernels.packed_expert import Room, Stored
from dgemma_cli.kernels.reference import gated, routed_groups
from dgemma_cli.kernels.scratch import Scratch, scratch


class Tile(NamedTuple):
    """Rows of a matrix for products. stack: [n, columns], those of stacked matrices one below the other; parts: those
    of each stacked matrix. factor: float32 [n], what the products are to be multiplied by, if they are.
    """

    stack: Tensor
    parts: Sequence[Tensor]
    factor: Tensor | None

    def product(self, x: Tensor) -> Tensor:
        """x: [..., columns] -> [..., n]."""
        found = F.linear(x, self.stack)
        return found if self.factor is None else found.mul_(self.factor)


class Packed(nn.Module):
    """``count`` packed matrices, each of ``stack`` stored ones of [rows, columns], one above the other.

    Every buffer is [count, stack, *shape], where shape is that of one stored matrix: what the file holds is copied into
    its place as it is. shapes: name of a buffer -> (shape, dtype).
    """

    run_expert: Callable[..., Tensor] | None = None  # of ``packed_expert.expert_with``, for formats that have it
    scales_products = False  # what that takes as ``scaled``

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
        # The matrices of each buffer, as some dtype: to take one anew would be one more call that threads queue for.
        self._seen: dict[tuple[str, torch.dtype | None], tuple[Tensor, tuple[Tensor, ...]]] = {}
        for name, (shape, dtype) in shapes.items():
            self.register_buffer(name, torch.empty(count, stack, *shape, dtype=dtype))

    def unpack(self, index: int, dtype: torch.dtype, rows: slice = slice(None)) -> Tensor:
        """Matrix ``index`` as numbers, or some rows of each stored one, [stack * rows, columns]: computed in float32,
        rounded once to ``dtype``.
        """
        first, last, _ = rows.indices(self.rows)
        found = torch.empty(self.stack, last - first, self.columns, dtype=dtype, device=self.device)
        for piece in self._pieces(first, last, 1):
            found[:, piece.start - first : piece.stop - first] = self._values([index], piece, scratch(self.device))[0]
        return found.flatten(0, 1)

    def tiles(self, indices: Sequence[int], dtype: torch.dtype, rows: slice = slice(None)) -> Iterator[list[Tile]]:
        """Some matrices for products, some rows of each stored matrix at a time: a tile for each of ``indices``.

        What ``unpack`` gives, but in bfloat16 float32 may have been rounded once more on the way: one value in tens of
        thousands is then the neighbour of what it would be. On a CPU there are as many rows as its caches hold, and a
        tile's memory is that of the next one, of whatever matrix, in the same thread: it is to be used before.
        """
        first, last, _ = rows.indices(self.rows)
        for piece in self._pieces(first, last, len(indices)):
            own, length = scratch(self.device), piece.stop - piece.start
            name, factors = self._fill(indices, piece, own, dtype)
            stacks = own.split(name, (len(indices), self.stack * length, self.columns), dtype)
            parts = own.split(name, (len(indices) * self.stack, length, self.columns), dtype)
            yield [
                Tile(stack, parts[at * self.stack : (at + 1) * self.stack], factor)
                for at, (stack, factor) in enumerate(zip(stacks, factors, strict=True))
            ]

    @property
    def at_once(self) -> int:
        """How many matrices a tile holds whole, at least one."""
        return max(1, _TILE // (self.stack * self.rows * self.columns))

    def _pieces(self, first: int, last: int, matrices: int) -> Iterator[slice]:
        """Rows to unpack at once: equal shares of them, but for the last."""
        size = last - first
        if self.device.type == "cpu" and size:
            size = -(-size // -(-size * matrices * self.stack * self.columns // _TILE))
        for begin in range(first, last, size or 1):
            yield slice(begin, min(begin + size, last))

    @property
    def device(self) -> torch.device:
        return self.codes.device

    def stored(self, index: int) -> Stored:
        """Matrix ``index`` for ``run_expert``."""
        raise NotImplementedError

    def room(self, most: int, scratch: Scratch) -> Room:
        """What ``run_expert`` works in, for ``most`` numbers at a time."""
        raise NotImplementedError

    def _stored(self, name: str, indices: Sequence[int], rows: slice, dtype: torch.dtype | None = None) -> list[Tensor]:
        """What a buffer has for some rows of some matrices, [stack, n, ...] each. dtype: what its bytes are read as."""
        buffer: Tensor = getattr(self, name)
        seen, matrices = self._seen.get((name, dtype), (None, ()))
        if seen is not buffer:
            matrices = (buffer if dtype is None else buffer.view(dtype)).unbind()
            self._seen[name, dtype] = buffer, matrices
        found = [matrices[index] for index in indices]
        return found if rows.stop - rows.start == self.rows else [matrix[:, rows] for matrix in found]

    def _fetch(
        self,
        name: str,
        indices: Sequence[int],
        rows: slice,
        scratch: Scratch,
        dtype: torch.dtype,
        stored_as: torch.dtype | None = None,
    ) -> Tensor:
        """The same as another dtype, [len(indices), stack, n, ...]: in the scratch, under the buffer's name."""
        parts = self._stored(name, indices, rows, stored_as)
        shape = len(parts), *parts[0].shape
        for place, part in zip(scratch.split(name, shape, dtype), parts, strict=True):
            place.copy_(part)
        return scratch.take(name, shape, dtype)

    def _fill(
        self, indices: Sequence[int], rows: slice, scratch: Scratch, dtype: torch.dtype
    ) -> tuple[str, Sequence[Tensor | None]]:
        """Makes tiles, [len(indices), stack, n, columns]: their name in the scratch, and the factors of each."""
        name = "values"
        if dtype == torch.float32:
            self._values(indices, rows, scratch)
        else:
            name, values = "rounded", self._nearly(indices, rows, scratch)
            scratch.take(name, tuple(values.shape), dtype).copy_(values)
        return name, [None] * len(indices)

    def _values(self, indices: Sequence[int], rows: slice, scratch: Scratch) -> Tensor:
        """Float32 [len(indices), stack, n, columns], in the scratch: some rows of every stored matrix."""
        raise NotImplementedError

    def _nearly(self, indices: Sequence[int], rows: slice, scratch: Scratch) -> Tensor:
        """The same, or what takes less time and may be rounded once more."""
        return self._values(indices, rows, scratch)


# Values unpacked at once on a CPU. With fewer, threads that unpack side by side get in each other's way: after each
# operation they queue for Python, and who has to wait is woken late. With more, the caches no longer hold what passes
# from one operation to the next.
_TILE = 2**20


class PackedLinear(nn.Module):
    """x @ W.T with W packed. matrix: one, maybe stacked."""

    def __init__(self, matrix: Packed) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., columns] -> [..., rows of the whole stack]."""
        stack, products = self.matrix.stack, [tile.product(x) for (tile,) in self.matrix.tiles([0], x.dtype)]
        if len(products) > 1 and stack > 1:  # some rows of each stored matrix, which belong together
            return whole([product.unflatten(-1, (stack, -1)) for product in products], dim=-1).flatten(-2)
        return whole(products, dim=-1)


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
        fast = x.dtype == torch.bfloat16 and x.is_cpu and blocked.available() and not torch.is_grad_enabled()
        if fast and self.gate_up.run_expert is not None and type(self.gate_up) is type(self.down):
            return routed_groups(x, weights, experts, self.down.count, self._run_at_once, 1)
        return routed_groups(x, weights, experts, self.down.count, self._run, self.gate_up.at_once)

    def _run_at_once(self, experts: Sequence[int], x: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        up, down, run = self.gate_up, self.down, self.gate_up.run_expert
        assert run is not None
        most = max(_TILE, 2 * up.columns, down.columns)
        room = up.room(most, scratch(x.device))
        return [
            run(x, own, *up.stored(expert), *down.stored(expert), *room, most, up.scales_products)
            for expert, own in zip(experts, rows, strict=True)
        ]

    def _run(self, experts: Sequence[int], x: Tensor, which: Sequence[Tensor]) -> list[Tensor]:
        rows = [x.index_select(0, own) for own in which]
        inner: list[list[Tensor]] = [[] for _ in experts]
        for tiles in self.gate_up.tiles(experts, rows[0].dtype):
            for found, own, tile in zip(inner, rows, tiles, strict=True):
                found.append(_gated(own, tile))
        outer: list[list[Tensor]] = [[] for _ in experts]
        inputs = [whole(found, dim=-1) for found in inner]
        for tiles in self.down.tiles(experts, rows[0].dtype):
            for found, own, tile in zip(outer, inputs, tiles, strict=True):
                found.append(tile.product(own))
        return [whole(found, dim=-1) for found in outer]


def _gated(x: Tensor, tile: Tile) -> Tensor:
    """gelu(x @ gate.T) * (x @ up.T). tile: rows of both."""
    fast = x.dtype == torch.bfloat16 and x.device.type == "cpu" and blocked.available()
    if fast and tile.factor is None and not torch.is_grad_enabled():
        return blocked.gated(x, *tile.parts)
    return gated(tile.product(x))
