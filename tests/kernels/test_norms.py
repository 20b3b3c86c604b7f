"""The fused norms against ``model.norm.rms_norm`` in the order of a layer."""

from __future__ import annotations

import pytest
import torch
from kernel_inputs import Inputs
from torch import Tensor

from dgemma_cli.kernels import norms
from dgemma_cli.kernels.planes import to_planes
from dgemma_cli.model.norm import rms_norm

EPS = 1e-6
# In bfloat16 one unit in the last place: float32 sums that differ in their last bits may round apart.
TOLERANCE = {torch.float32: {"rtol": 2e-6, "atol": 2e-6}, torch.bfloat16: {"rtol": 2**-7, "atol": 1e-6}}

shapes = pytest.mark.parametrize(("rows", "columns"), [(1, 16), (5, 77), (3, 704)])
dtypes = pytest.mark.parametrize("dtype", TOLERANCE)


def normed(x: Tensor, weight: Tensor | None) -> Tensor:
    return rms_norm(x.float(), weight, EPS)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected.to(found.dtype), **TOLERANCE[found.dtype])


@shapes
@dtypes
def test_rms_norm(device: torch.device, dtype: torch.dtype, rows: int, columns: int) -> None:
    make = Inputs(device, dtype)
    x, weight, out = make.random(rows, columns, scale=3), make.random(columns), make.poisoned(rows, columns)
    assert norms.rms_norm(x, weight, EPS, out=out) is out
    close(out, normed(x, weight))
    close(norms.rms_norm(x, None, EPS), normed(x, None))
    tiny = x * 1e-4  # where eps counts
    close(norms.rms_norm(tiny, weight, EPS), normed(tiny, weight))


@shapes
@dtypes
@pytest.mark.parametrize("in_place", [False, True])
def test_residual_norms(device: torch.device, dtype: torch.dtype, rows: int, columns: int, in_place: bool) -> None:
    make = Inputs(device, dtype)
    x, attended = make.random(rows, columns), make.random(rows, columns, scale=9)
    post, dense, routed = (make.random(columns) for _ in range(3))
    router = make.random(columns).float() * columns**-0.5
    expected = (x.float() + normed(attended, post)).to(dtype)
    out = (x if in_place else make.poisoned(rows, columns), *(make.poisoned(rows, columns) for _ in range(3)))
    found = norms.residual_norms(x, attended, post, dense, routed, router, EPS, out=out)
    assert all(a is b for a, b in zip(found, out, strict=True))
    close(found[0], expected)
    for of_weight, weight in zip(found[1:], (dense, routed, router), strict=True):
        close(of_weight, normed(found[0], weight))
    # Of the residual as it is stored, not as it was before it was rounded: nearly all bits are those of a norm of that.
    assert (found[1] == norms.rms_norm(found[0], dense, EPS)).float().mean() > 0.9


@shapes
@dtypes
@pytest.mark.parametrize("top_k", [1, 3])
@pytest.mark.parametrize("in_place", [False, True])
def test_combine(device: torch.device, dtype: torch.dtype, rows: int, columns: int, top_k: int, in_place: bool) -> None:
    make = Inputs(device, dtype)
    x, dense, routed = make.random(rows, columns), make.random(rows, columns), make.random(rows, top_k, columns)
    of_dense, of_routed, post, following = (make.random(columns) for _ in range(4))
    scalar = torch.tensor([0.37], device=device, dtype=dtype)
    both = normed(dense, of_dense) + normed(routed.float().sum(1), of_routed)
    expected = (x.float() + normed(both, post)) * scalar.float()
    out = (x if in_place else make.poisoned(rows, columns), make.poisoned(rows, columns))
    weights = (of_dense, of_routed, post, scalar, following)
    found = norms.combine(x, dense, routed if in_place else routed.flatten(0, 1), *weights, EPS, out=out)
    assert all(a is b for a, b in zip(found, out, strict=True))
    close(found[0], expected)
    close(found[1], normed(found[0], following))
    assert (found[1] == norms.rms_norm(found[0], following, EPS)).float().mean() > 0.9


@dtypes
def test_planes(device: torch.device, dtype: torch.dtype) -> None:
    """The same numbers, each reader's in planes of its own."""
    make = Inputs(device, dtype)
    x, attended, routed = make.random(3, 88), make.random(3, 88), make.random(3, 2, 88)
    weights = [make.random(88) for _ in range(3)]
    scalar, router = make.random(1), make.random(88).float()
    plain = norms.residual_norms(x, attended, *weights, router, EPS)
    out = (make.poisoned(3, 88), make.poisoned(3, 4, 22), make.poisoned(3, 2, 44), make.poisoned(3, 88))
    found = norms.residual_norms(x, attended, *weights, router, EPS, 4, 2, out)
    assert all(a is b for a, b in zip(found, out, strict=True))
    for mine, theirs, planes in zip(found, plain, (1, 4, 2, 1), strict=True):
        assert torch.equal(mine, to_planes(theirs, planes))
    plain = norms.combine(x, attended, routed, *weights, scalar, weights[0], EPS)
    found = norms.combine(x, attended, routed, *weights, scalar, weights[0], EPS, 4)
    assert torch.equal(found[0], plain[0]) and torch.equal(found[1], to_planes(plain[1], 4))
    assert torch.equal(norms.rms_norm(x, router, EPS, 2), to_planes(norms.rms_norm(x, router, EPS), 2))
    with pytest.raises(ValueError, match="do not go into"):
        norms.residual_norms(x, attended, *weights, router, EPS, 2, 4, out)


def test_a_view_with_gaps_is_refused(device: torch.device) -> None:
    x = Inputs(device).random(4, 8)
    with pytest.raises(ValueError, match="not contiguous"):
        norms.rms_norm(x[:, ::2], None, EPS)
