"""Attention over a cache against ``model.cache.attend`` with the mask written out."""

from __future__ import annotations

import pytest
import torch
from kernel_inputs import Inputs
from torch import Tensor

from dgemma_cli.kernels.attention import Tiles, attend_canvas, attend_causal
from dgemma_cli.kernels.planes import to_planes
from dgemma_cli.model.cache import attend

SMALL = Tiles(16, 16, 4, 1)


def number(value: int, device: torch.device) -> Tensor:
    return torch.tensor([value], dtype=torch.int32, device=device)


class Case:
    """Queries, and a cache whose unused places hold NaN."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, tokens: int, start: int, heads: int, kv_heads: int, dim: int
    ) -> None:
        make = Inputs(device, dtype)
        self.start, self.tokens, self.device = start, tokens, device
        self.q = make.random(tokens, heads, dim, scale=dim**-0.25)
        self.k, self.v = (make.poisoned(kv_heads, start + tokens + 5, dim) for _ in range(2))
        used = slice(0, start + tokens)
        self.k[:, used] = make.random(kv_heads, start + tokens, dim, scale=dim**-0.25)
        self.v[:, used] = make.random(kv_heads, start + tokens, dim)
        self.out = make.poisoned(tokens, heads * dim)

    def expected(self, mask: Tensor) -> Tensor:
        """mask: bool [tokens, start + tokens]."""
        q, k, v = self.q.float().transpose(0, 1), self.k.float(), self.v.float()
        used = slice(0, self.start + self.tokens)
        return attend(q[None], k[None, :, used], v[None, :, used], mask)[0].transpose(0, 1).flatten(1)

    def close(self, found: Tensor, mask: Tensor) -> None:
        tolerance = {"rtol": 1e-5, "atol": 1e-5} if found.dtype == torch.float32 else {"rtol": 2**-6, "atol": 2**-7}
        torch.testing.assert_close(found, self.expected(mask).to(found.dtype), **tolerance)

    def canvas(self, first: int, tiles: Tiles = SMALL, splits: int = 1) -> None:
        self.forget(first)
        start, begin = number(self.start, self.device), number(first, self.device)
        found = attend_canvas(self.q, self.k, self.v, begin, start, 1, self.out, tiles, splits)
        assert found is self.out
        position = torch.arange(self.start + self.tokens, device=self.device)
        self.close(found, (position >= first).expand(self.tokens, -1))

    def causal(self, window: int | None, tiles: Tiles = SMALL, splits: int = 1) -> None:
        start = number(self.start, self.device)
        found = attend_causal(self.q, self.k, self.v, start, window, 1, self.out, tiles, splits)
        assert found is self.out
        key = torch.arange(self.start + self.tokens, device=self.device)[None]
        query = torch.arange(self.start, self.start + self.tokens, device=self.device)[:, None]
        self.close(found, (key <= query) & (key > query - (window or self.start + self.tokens)))

    def forget(self, first: int) -> None:
        """What lies before ``first`` may hold anything, and is replaced by large numbers."""
        self.k[:, :first] = 99.0
        self.v[:, :first] = 99.0


layouts = pytest.mark.parametrize(("heads", "kv_heads", "dim", "splits"), [(4, 2, 16, 1), (3, 1, 32, 3), (2, 2, 16, 2)])


@layouts
@pytest.mark.parametrize(
    ("tokens", "start", "first"),
    [(5, 0, 0), (16, 16, 0), (21, 40, 0), (21, 40, 17), (1, 33, 33)],  # empty, whole tiles, odd, in a window, alone
)
def test_canvas(
    device: torch.device, heads: int, kv_heads: int, dim: int, splits: int, tokens: int, start: int, first: int
) -> None:
    Case(device, torch.float32, tokens, start, heads, kv_heads, dim).canvas(first, splits=splits)


@layouts
@pytest.mark.parametrize("window", [None, 7, 16, 64])
@pytest.mark.parametrize(("tokens", "start"), [(5, 0), (21, 40), (37, 3)])
def test_causal(
    device: torch.device, heads: int, kv_heads: int, dim: int, splits: int, tokens: int, start: int, window: int | None
) -> None:
    Case(device, torch.float32, tokens, start, heads, kv_heads, dim).causal(window, splits=splits)


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 2, 256), (8, 1, 512)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_head_sizes_of_the_real_model(
    device: torch.device, dtype: torch.dtype, heads: int, kv_heads: int, dim: int
) -> None:
    if device.type == "cuda" and dtype == torch.float32 and dim == 512:
        pytest.skip("float32 tiles of this size do not fit a card")
    Case(device, dtype, 9, 30, heads, kv_heads, dim).canvas(11, Tiles(16, 32, 4, 1), splits=2)
    Case(device, dtype, 9, 30, heads, kv_heads, dim).causal(24, Tiles(16, 32, 4, 1), splits=2)


def test_the_tiles_it_chooses_itself(device: torch.device) -> None:
    """As they would be on this machine, with sure and flat rows, and scores beyond what exp can hold."""
    case = Case(device, torch.bfloat16, 70, 130, 4, 2, 64)
    case.q *= torch.tensor([0.0, 1.0, 40.0, 1.0], device=device, dtype=torch.bfloat16)[:, None]
    start = number(130, device)
    found = attend_canvas(case.q, case.k, case.v, number(0, device), start, out=case.out)
    case.close(found, torch.ones(70, 200, dtype=torch.bool, device=device))
    case.close(
        attend_causal(case.q, case.k, case.v, start, None),
        torch.ones(70, 200, dtype=torch.bool, device=device).tril(130),
    )


@pytest.mark.parametrize("planes", [2, 4])
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(4, 2, 16), (3, 1, 32)])
def test_planes(device: torch.device, heads: int, kv_heads: int, dim: int, splits: int, planes: int) -> None:
    case = Case(device, torch.bfloat16, 21, 40, heads, kv_heads, dim)
    start, tiling = number(case.start, device), {"tiles": SMALL, "splits": splits}
    for look, *rest in ((attend_canvas, number(17, device), start), (attend_causal, start, 7)):
        plain = look(case.q, case.k, case.v, *rest, **tiling)
        out = case.out.view(21, planes, -1)
        found = look(case.q, case.k, case.v, *rest, planes, out, **tiling)
        assert found is out
        assert torch.equal(found, to_planes(plain, planes))


def test_more_parts_than_tiles_of_keys(device: torch.device) -> None:
    Case(device, torch.float32, 3, 1, 2, 1, 16).canvas(0, splits=8)


def test_odd_sizes_are_refused(device: torch.device) -> None:
    make = Inputs(device)
    k, start = make.random(2, 8, 24), number(0, device)
    with pytest.raises(ValueError, match="heads of 24"):
        attend_causal(make.random(4, 2, 24), k, k, start, None)
