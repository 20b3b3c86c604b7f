"""Weights laid out ahead of time as oneDNN's matrix kernels want them: for bfloat16 on the CPU, without gradients.

torch hands oneDNN plain rows, which it repacks in every call. With few tokens for each expert that costs as much as the
products themselves. The results are the same bits.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.reference import gated, routed_experts

_TYPICAL_ROWS = 256  # oneDNN picks its block sizes for so many tokens; any number may come


def available() -> bool:
    """Whether this build of torch and this CPU have the kernels, for bfloat16."""
    return (
        torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


class _Matrix:
    """One blocked matrix [rows, columns]. weight: is copied."""

    def __init__(self, weight: Tensor, typical_rows: int) -> None:
        self._blocked = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), typical_rows)

    def times(self, x: Tensor) -> Tensor:
        """x @ weight.T: [..., columns] -> [..., rows]."""
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._blocked, None, "none", [], "")
        return found


class BlockedLinear(nn.Module):
    """``nn.Linear`` without a bias. It has no parameters: a blocked weight is no part of a checkpoint."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._matrix = _Matrix(weight, _TYPICAL_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., columns] -> [..., rows]."""
        return self._matrix.times(x)


class BlockedExperts(nn.Module):
    """``model.experts.Experts``. gate_up: [2 I, hidden] for each expert; down: [hidden, I] for each.

    typical_rows: how many tokens an expert gets in a step, about.
    """

    def __init__(self, gate_up: Iterable[Tensor], down: Iterable[Tensor], typical_rows: int) -> None:
        super().__init__()
        self._gate_up = [_Matrix(weight, typical_rows) for weight in gate_up]
        self._down = [_Matrix(weight, typical_rows) for weight in down]

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x: [N, hidden]; weights, experts: [N, top_k]. Returns [N, hidden]."""
        return routed_experts(x, weights, experts, len(self._down), self._run)

    def _run(self, expert: int, rows: Tensor) -> Tensor:
        return self._down[expert].times(gated(self._gate_up[expert].times(rows)))
