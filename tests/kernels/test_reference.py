from __future__ import annotations

import torch

from dgemma_cli.kernels.reference import routed_experts


def test_experts_are_weighted_and_keep_their_gradients() -> None:
    x = torch.randn(7, 4, dtype=torch.float32, generator=torch.Generator().manual_seed(0)).requires_grad_()
    weights = torch.rand(7, 2, generator=torch.Generator().manual_seed(1)).requires_grad_()
    ids = torch.tensor([[0, 2], [2, 1], [1, 0], [2, 0], [1, 2], [0, 1], [0, 2]])
    found = routed_experts(x, weights, ids, 4, lambda expert, rows: rows * (expert + 1.0))
    expected = x * (weights * (ids + 1.0)).sum(-1, keepdim=True)
    torch.testing.assert_close(found, expected)
    for mine, plain in zip(
        torch.autograd.grad(found.square().sum(), (x, weights)),
        torch.autograd.grad(expected.square().sum(), (x, weights)),
        strict=True,
    ):
        torch.testing.assert_close(mine, plain)
