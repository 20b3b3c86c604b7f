"""Dense products with packed weights against float64 products of the unpacked ones; activations plane by plane."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from packed_matrices import FORMATS, group, numbers
from torch import Tensor

from dgemma_cli.kernels.dense import packed_gated, packed_linear
from dgemma_cli.kernels.planes import to_planes
from dgemma_cli.kernels.words import planes_of


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).bfloat16()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("tokens", "stack", "rows"), [(1, 1, 40), (37, 2, 96), (130, 1, 8)])
def test_linear(device: torch.device, name: str, tokens: int, stack: int, rows: int) -> None:
    matrix = FORMATS[name](1, stack, rows, 128 + 2 * group(name))
    x = normal(tokens, numbers(matrix).shape[-1])
    wide = torch.full((tokens, stack * rows + 5), torch.nan, dtype=torch.bfloat16, device=device)
    out = wide[:, 3:-2]  # as a part of a fused projection has it
    assert packed_linear(x.to(device), matrix.to(device), out=out) is out
    expected = x.double() @ numbers(matrix)[0].T
    tolerance = 1e-2 * expected.abs().mean().item()
    torch.testing.assert_close(out.cpu().double(), expected, rtol=2**-8, atol=tolerance)
    assert wide[:, :3].isnan().all() and wide[:, -2:].isnan().all(), "nothing is written beside it"
    laid_out = to_planes(x.to(device), planes_of(matrix))
    assert torch.equal(packed_linear(laid_out, matrix.to(device)).cpu(), out.cpu())


@pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of NumPy; it ends in 1 / inf
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("tokens", "stack", "rows"), [(37, 1, 192), (2, 2, 20)])
def test_gated(device: torch.device, name: str, tokens: int, stack: int, rows: int) -> None:
    """Gate and up stored in one matrix, or in a stack of two."""
    matrix = FORMATS[name](1, stack, rows, 128 + 2 * group(name))
    weights = numbers(matrix)[0]
    x = normal(tokens, weights.shape[-1]) * 2 / (weights.square().mean() * weights.shape[-1]).sqrt()  # gelu bends there
    x = x.bfloat16()
    gate, up = (x.double() @ weights.T).chunk(2, dim=1)
    expected = F.gelu(gate, approximate="tanh") * up
    found = packed_gated(x.to(device), matrix.to(device))
    tolerance = 1e-2 * expected.abs().mean().item()
    torch.testing.assert_close(found.cpu().double(), expected, rtol=2**-8, atol=tolerance)
    laid_out = packed_gated(to_planes(x.to(device), planes_of(matrix)), matrix.to(device), 2)
    assert torch.equal(laid_out, to_planes(found, 2))


@pytest.mark.parametrize("planes", [1, 2, 4])
@pytest.mark.parametrize("columns", [8, 704, 2816])
def test_planes(device: torch.device, planes: int, columns: int) -> None:
    x = normal(3, columns).to(device)
    expected = torch.stack([x[:, plane::planes] for plane in range(planes)], dim=1)
    assert torch.equal(to_planes(x, planes), expected[:, 0] if planes == 1 else expected)


def test_what_does_not_fit_is_an_error(device: torch.device) -> None:
    matrix = FORMATS["fp8"](1, 1, 4, 32)
    with pytest.raises(ValueError, match="do not fit"):
        packed_linear(normal(2, 48), matrix)
    with pytest.raises(ValueError, match="do not fit"):
        packed_linear(to_planes(normal(2, 32), 4), matrix)  # which is read in two planes
    with pytest.raises(ValueError, match="one matrix"):
        packed_linear(normal(2, 32), FORMATS["fp8"](3, 1, 4, 32))
    with pytest.raises(ValueError, match="4-tuples"):
        to_planes(normal(2, 30), 4)
    with pytest.raises(ValueError, match="side by side"):
        packed_linear(normal(2, 32), matrix, out=torch.empty(4, 2, dtype=torch.bfloat16).T)
    with pytest.raises(TypeError, match="bfloat16"):
        packed_linear(normal(2, 32), torch.ones(4, 32))
