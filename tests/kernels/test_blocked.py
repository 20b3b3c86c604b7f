"""Blocked weights give what plain ones give."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dgemma_cli.kernels import blocked
from dgemma_cli.kernels.reference import gated, routed_experts

pytestmark = pytest.mark.skipif(not blocked.available(), reason="no oneDNN for bfloat16 on this CPU")


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize("shape", [(1, 48), (5, 48), (2, 33, 48)])
def test_linear(shape: tuple[int, ...]) -> None:
    weight = noise(70, 48)
    found = blocked.BlockedLinear(weight)(noise(*shape))
    torch.testing.assert_close(found, F.linear(noise(*shape), weight), rtol=1e-2, atol=1e-2)


def test_experts() -> None:
    gate_up, down, x = noise(6, 64, 48) / 7, noise(6, 48, 32) / 6, noise(19, 48)
    weights = torch.rand(19, 2, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(38).view(19, 2) % 5  # the last expert has no token
    expected = routed_experts(
        x, weights, ids, 6, lambda expert, rows: F.linear(gated(F.linear(rows, gate_up[expert])), down[expert])
    )
    found = blocked.BlockedExperts(gate_up, down, 8)(x, weights, ids)
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)
