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
        return self._values(index).view(self.stack * self.rows, self.columns).to(dtype)

    def _values(self, index: int) -> Tensor:
        """Float32 [stack, rows, columns]."""
        raise NotImplementedError


def pairs(values: Sequence[float]) -> Tensor:
    """What a byte of two codes stands for, for all 256 bytes: float32 [256, 2]. The low nibble comes first."""
    byte = torch.arange(256, device="cpu")
    table = torch.tensor(values, dtype=torch.float32, device="cpu")
    return torch.stack((table[byte & 15], table[byte >> 4]), dim=-1)


def look_up(codes: Tensor, table: Tensor) -> Tensor:
    """Two values a byte: uint8 [..., n] by a table of ``pairs`` -> float32 [..., 2 n]."""
    # Both values of a pair move as one 64-bit word, in one pass.
    words = table.view(torch.int64)[:, 0].to(codes.device)
    found = words.index_select(0, codes.flatten().int()).view(torch.float32)
    return found.view(*codes.shape[:-1], 2 * codes.shape[-1])


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
