"""gelu(gate) * up in one launch, against ``kernels.reference.gated``."""

from __future__ import annotations

import pytest
import torch
from kernel_inputs import Inputs

from dgemma_cli.kernels.gate import gated
from dgemma_cli.kernels.planes import to_planes
from dgemma_cli.kernels.reference import gated as reference


@pytest.mark.parametrize("shape", [(1, 2), (3, 154), (2, 4224)])
def test_gated(device: torch.device, shape: tuple[int, int]) -> None:
    both = Inputs(device).random(*shape, scale=2)
    torch.testing.assert_close(gated(both), reference(both), rtol=2e-5, atol=2e-6)
    rounded = gated(both.bfloat16())
    expected = reference(both.bfloat16().float())
    torch.testing.assert_close(rounded, expected.bfloat16(), rtol=2**-7, atol=1e-6)


@pytest.mark.parametrize("planes", [2, 4])
def test_planes(device: torch.device, planes: int) -> None:
    both = Inputs(device, torch.bfloat16).random(3, 152)
    assert torch.equal(gated(both, planes), to_planes(gated(both), planes))
