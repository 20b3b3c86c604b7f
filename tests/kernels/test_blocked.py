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


def expert(x: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    return F.linear(gated(F.linear(x, gate_up)), down)


def error(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).abs().mean())


def test_mlp_is_nearer_to_float64_than_plain_products() -> None:
    gate_up, down, x = noise(64, 48) / 7, noise(48, 32) / 6, noise(2, 19, 48)
    exact = expert(x.double(), gate_up.double(), down.double())
    assert error(blocked.BlockedMLP(gate_up, down)(x), exact) < error(expert(x, gate_up, down), exact)


def test_experts_are_nearer_to_float64_than_plain_products() -> None:
    gate_up, down, x = noise(6, 64, 48) / 7, noise(6, 48, 32) / 6, noise(19, 48)
    weights = torch.rand(19, 2, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(38).view(19, 2) % 5  # the last expert has no token

    def plain(dtype: torch.dtype) -> torch.Tensor:
        wide_up, wide_down = gate_up.to(dtype), down.to(dtype)
        return routed_experts(x.to(dtype), weights, ids, 6, lambda e, rows: expert(rows, wide_up[e], wide_down[e]))

    found = blocked.BlockedExperts(gate_up, down, 8)(x, weights, ids)
    assert error(found, plain(torch.float64)) < error(plain(torch.bfloat16), plain(torch.float64))
