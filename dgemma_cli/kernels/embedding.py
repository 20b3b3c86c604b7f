"""Token embeddings that stay packed, read by rows and by blocks of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.crew import whole
from dgemma_cli.kernels.int8 import Int8

_BLOCK = 4096  # rows unpacked at once


class PackedEmbedding(nn.Module):
    """``model.embedding.Embedding`` with packed rows. dtype: that of the rows it gives, and of the arithmetic."""

    def __init__(self, matrix: Int8, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix = matrix
        self.dtype = dtype

    def forward(self, ids: Tensor) -> Tensor:
        """The rows of ``ids``: int64 [...] -> [..., hidden]."""
        return self.matrix.rows_of(ids, self.dtype)

    def scores(self, hidden: Tensor, ids: slice = slice(None)) -> Tensor:
        """hidden @ W.T, or that for some rows of W: [..., hidden] -> [..., V]."""
        tiles = (tile for block in self._blocks(ids) for (tile,) in self.matrix.tiles([0], hidden.dtype, block))
        return whole([tile.product(hidden) for tile in tiles], dim=-1)

    def mean(self, probabilities: Tensor, unpack: Callable[[Int8, slice], Tensor] | None = None) -> Tensor:
        """The mean row under each distribution: [..., V] -> [..., hidden]. Blocks are added up in float32.

        unpack: gives some rows of the matrix, [n, hidden] of the embedding's dtype, in place of ``Int8.unpack``.
        """
        shape = (*probabilities.shape[:-1], self.matrix.columns)
        total = torch.zeros(shape, dtype=torch.float32, device=probabilities.device)
        for block in self._blocks(slice(None)):
            rows = self.matrix.unpack(0, self.dtype, block) if unpack is None else unpack(self.matrix, block)
            total += probabilities[..., block].to(self.dtype) @ rows
        return total.to(self.dtype)

    def _blocks(self, ids: slice) -> Iterator[slice]:
        first, last, _ = ids.indices(self.matrix.rows)
        for begin in range(first, last, _BLOCK):
            yield slice(begin, min(begin + _BLOCK, last))
