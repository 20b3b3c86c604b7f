"""The experts' kernels against float64 products of the unpacked weights."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from packed_matrices import FORMATS, group, numbers
from torch import Tensor

from dgemma_cli.kernels import grouped
from dgemma_cli.kernels.grouping import group_by_expert
from dgemma_cli.kernels.planes import to_planes
from dgemma_cli.kernels.words import planes_of

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of NumPy; it ends in 1 / inf
COUNT, TOP_K = 5, 2


def ids(which: str, tokens: int) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if which == "all to one":  # more than a tile; four experts have none
        return torch.full((tokens, TOP_K), 3)
    return torch.stack([torch.randperm(COUNT - 1, generator=generator)[:TOP_K] for _ in range(tokens)])


def inputs(tokens: int, matrix: Tensor) -> Tensor:
    """Activations whose products with the matrix are near 1 to 3, where gelu bends."""
    x = torch.randn(tokens, matrix.shape[-1], generator=torch.Generator().manual_seed(0))
    return (x * 2 / matrix.square().mean().sqrt() / matrix.shape[-1] ** 0.5).bfloat16()


def expected_inner(x: Tensor, gate_up: Tensor, entries: Tensor, experts: Tensor) -> Tensor:
    both = torch.einsum("nh,nrh->nr", x.double()[entries // TOP_K], gate_up[experts.flatten()[entries]])
    gate, up = both.chunk(2, dim=-1)
    return F.gelu(gate, approximate="tanh") * up


def assert_near(found: Tensor, expected: Tensor) -> None:
    """Within the rounding of the result to bfloat16, and of few weights (int8) the other way."""
    torch.testing.assert_close(found.cpu().double(), expected, rtol=2**-8, atol=1e-2 * expected.abs().mean().item())


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(("which", "tokens"), [("spread", 13), ("all to one", 11)])
def test_products(device: torch.device, name: str, which: str, tokens: int) -> None:
    # Columns are no multiple of a step, rows none of a tile.
    hidden, inner = 192 + group(name) * 2, 96
    gate_up, down = FORMATS[name](COUNT, 2, inner, hidden), FORMATS[name](COUNT, 1, hidden, inner + 32)
    wide = FORMATS[name](COUNT, 2, inner + 32, hidden)
    x, experts = inputs(tokens, numbers(gate_up)), ids(which, tokens)
    weights = torch.rand(tokens, TOP_K, generator=torch.Generator().manual_seed(2))
    for one, other in ((gate_up, None), (wide, down)):
        columns = numbers(one).shape[1] // 2
        groups = group_by_expert(experts.to(device), COUNT, 16)
        order = groups.order.cpu().long()
        planes = 1 if other is None else planes_of(other)
        shape = (columns,) if planes == 1 else (planes, columns // planes)
        out = torch.full((tokens * TOP_K, *shape), torch.nan, dtype=torch.bfloat16, device=device)
        found = grouped.grouped_gate_up(x.to(device), one.to(device), groups, planes, out=out)
        assert found is out
        reference = expected_inner(x, numbers(one), order, experts)
        assert_near(found, to_planes(reference.to(device), planes).cpu())
        if other is None:
            continue
        laid_out = to_planes(x.to(device), planes_of(one))
        assert torch.equal(grouped.grouped_gate_up(laid_out, one.to(device), groups, planes), out)
        out = torch.full((tokens * TOP_K, hidden), torch.nan, dtype=torch.bfloat16, device=device)
        result = grouped.grouped_down(found, other.to(device), groups, weights.to(device), out=out)
        assert result is out
        inner_plain = found.cpu().double().view(-1, planes, columns // planes).transpose(1, 2).reshape(-1, columns)
        products = torch.einsum("ni,nhi->nh", inner_plain, numbers(other)[experts.flatten()[order]])
        expected = torch.empty_like(products)
        expected[order] = products * weights.double().flatten()[order, None]
        assert_near(result, expected)
