"""Weights laid out ahead of time as oneDNN's matrix kernels want them: for bfloat16 on the CPU, without gradients.

torch hands oneDNN plain rows, which it repacks in every call. With few tokens for each expert that costs as much as the
products themselves.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cache

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.at_once import at_once
from dgemma_cli.kernels.reference import routed_groups

# oneDNN keeps the kernels that it made, each for one shape, which an expert's number of tokens is a part of. The usual
# 1,024 are too few: they push each other out, and are made anew in every step. It reads this at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")

_TYPICAL_ROWS = 256  # oneDNN picks its block sizes for so many tokens; any number may come


@cache
def available() -> bool:
    """Whether this build of torch and this CPU have the kernels, for bfloat16."""
    return (
        torch.backends.mkldnn.is_available()
        and all(hasattr(torch.ops.mkldnn, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
        and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    )


def blocked(weight: Tensor, typical_rows: int) -> Tensor:
    """A copy of ``weight`` [rows, columns], laid out for products with so many rows: for the functions below alone."""
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), typical_rows)
    return found


def linear(x: Tensor, weight: Tensor) -> Tensor:
    """x @ weight.T: [..., columns] -> [..., rows]. weight: blocked or plain."""
    found: Tensor = torch.ops.mkldnn._linear_pointwise.default(x, weight, None, "none", [], "")
    return found


@at_once
def gated(x: Tensor, gate: Tensor, up: Tensor) -> Tensor:
    """gelu(x @ gate.T) * (x @ up.T): [..., columns] -> [..., rows]. gate, up: blocked or plain.

    gelu and product are taken of the float32 sums while these are in registers: fewer passes, and fewer roundings than
    ``reference.gated`` of a product has.
    """
    active = torch.ops.mkldnn._linear_pointwise(x, gate, None, "gelu", [], "tanh")
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, active, up, None, "mul")
    return found


class BlockedLinear(nn.Module):
    """``nn.Linear`` without a bias. It has no parameters: a blocked weight is no part of a checkpoint."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self._weight = blocked(weight, _TYPICAL_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., columns] -> [..., rows]."""
        return linear(x, self._weight)


class BlockedMLP(nn.Module):
    """``model.experts.MLP``. gate_up: [2 I, hidden], gate first; down: [hidden, I]."""

    def __init__(self, gate_up: Tensor, down: Tensor) -> None:
        super().__init__()
        self._expert = _Expert(gate_up, down, _TYPICAL_ROWS)

    def forward(self, x: Tensor) -> Tensor:
        return self._expert(x, None)


class BlockedExperts(nn.Module):
    """``model.experts.Experts``. gate_up: [2 I, hidden] for each expert; down: [hidden, I] for each.

    typical_rows: how many tokens an expert gets in a step, about.
    """

    def __init__(self, gate_up: Iterable[Tensor], down: Iterable[Tensor], typical_rows: int) -> None:
        super().__init__()
        self._experts = [_Expert(*pair, typical_rows) for pair in zip(gate_up, down, strict=True)]

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        """x: [N, hidden]; weights, experts: [N, top_k]. Returns [N, hidden]."""
        return routed_groups(x, weights, experts, len(self._experts), self._run, 1)

    def _run(self, experts: Sequence[int], x: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        return [self._experts[expert](x, own) for expert, own in zip(experts, rows, strict=True)]


class _Expert:
    """down(gelu(gate) * up)."""

    def __init__(self, gate_up: Tensor, down: Tensor, typical_rows: int) -> None:
        self._gate, self._up = (blocked(weight, typical_rows) for weight in gate_up.chunk(2))
        self._down = blocked(down, typical_rows)

    def __call__(self, x: Tensor, rows: Tensor | None) -> Tensor:
        """x: [..., hidden]; rows: which of x [N, hidden], if not all."""
        return _expert(x, rows, self._gate, self._up, self._down)


@at_once
def _expert(x: Tensor, rows: Tensor | None, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
    """``linear`` of ``gated``."""
    if rows is not None:
        x = x.index_select(0, rows)
    active = torch.ops.mkldnn._linear_pointwise(x, gate, None, "gelu", [], "tanh")
    inner = torch.ops.mkldnn._linear_pointwise(x, active, up, None, "mul")
    found: Tensor = torch.ops.mkldnn._linear_pointwise(inner, down, None, "none", [], "")
    return found
