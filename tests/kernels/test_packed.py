"""Packed matrices against what they stand for, taken apart by hand; and products with them, tile by tile."""

from __future__ import annotations

import threading

import packed_matrices
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dgemma_cli.kernels import bits, packed, packed_expert
from dgemma_cli.kernels.embedding import PackedEmbedding
from dgemma_cli.kernels.fp8 import FP8
from dgemma_cli.kernels.int4 import Int4
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.nvfp4 import E2M1, NVFP4
from dgemma_cli.kernels.packed import Packed, PackedExperts, PackedLinear
from dgemma_cli.kernels.reference import gated, routed_experts
from dgemma_cli.kernels.scratch import Scratch

FORMATS = [name for name in packed_matrices.FORMATS if name != "bf16"]
CPU = torch.device("cpu")


def made(name: str, count: int, stack: int, rows: int, columns: int) -> Packed:
    matrix = packed_matrices.FORMATS[name](count, stack, rows, columns)
    assert isinstance(matrix, Packed)
    return matrix


def by_hand(matrix: Packed) -> Tensor:
    """float64 [count, stack * rows, columns]; of float32's own roundings there is none."""
    codes = matrix.codes
    scale = matrix.get_buffer("scale").double()
    if isinstance(matrix, FP8):
        values = codes.double() * scale
    else:
        width = 8 if isinstance(matrix, Int8) else 4
        raw = codes.view(torch.uint8)
        alone = raw if width == 8 else torch.stack((raw & 15, raw >> 4), dim=-1).flatten(-2)
        if isinstance(matrix, NVFP4):
            values = torch.tensor(E2M1, dtype=torch.float64)[alone.long()]
        else:
            assert isinstance(matrix, Int4 | Int8)
            values = alone.double() - 2 ** (width - 1)
        values = values * scale.repeat_interleave(values.shape[-1] // scale.shape[-1], dim=-1)
        if isinstance(matrix, NVFP4):
            factor = matrix.matrix_scale.double().view(matrix.count, matrix.stack, 1, 1)
            values = values / factor if matrix.divides else values * factor
    return values.flatten(1, 2)


def joined(matrix: Packed, index: int, dtype: torch.dtype) -> Tensor:
    """All tiles of a matrix, times their factors in float64 if they have some."""
    rows = []
    for (tile,) in matrix.tiles([index], dtype):
        values = tile.stack.clone() if tile.factor is None else tile.stack.double() * tile.factor[:, None].double()
        assert torch.equal(torch.cat(list(tile.parts)), tile.stack)
        rows.append(values.unflatten(0, (matrix.stack, -1)))
    return torch.cat(rows, dim=1).flatten(0, 1)


def spread(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).pow(2).mean().sqrt())


@pytest.fixture(params=[2**20, 100])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many values a tile has: one for all rows, and many."""
    monkeypatch.setattr(packed, "_TILE", request.param)
    monkeypatch.setattr(packed_expert, "_AT_ONCE", 2 * request.param)  # 100: of the rows one or two
    return int(request.param)


@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_values(name: str, tile: int) -> None:
    matrix = made(name, 2, 2, 12, 128)
    for index, exact in enumerate(by_hand(matrix)):
        values = matrix.unpack(index, torch.float32)
        torch.testing.assert_close(values.double(), exact, rtol=2**-23, atol=0)
        assert torch.equal(joined(matrix, index, torch.float32), values)
        assert torch.equal(matrix.unpack(index, torch.bfloat16), values.bfloat16())
        some = slice(3, 8)
        assert torch.equal(matrix.unpack(index, torch.float32, some), values.view(2, 12, 128)[:, some].flatten(0, 1))


@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_tiles_of_bfloat16_are_as_near_as_values_rounded_once(name: str, tile: int) -> None:
    matrix = made(name, 2, 2, 12, 128)
    for index, exact in enumerate(by_hand(matrix)):
        once, found = matrix.unpack(index, torch.bfloat16), joined(matrix, index, torch.bfloat16)
        assert spread(found, exact) <= spread(once, exact) * (1 + 1e-6)
        apart = found.bfloat16().view(torch.int16).int() - once.view(torch.int16).int()
        assert apart.abs().max() <= 1  # neighbours
        assert apart.count_nonzero() <= 2


def test_every_code() -> None:
    codes = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn)
    scratch = Scratch(CPU)
    scratch.take("codes", (256,), torch.int16).copy_(codes.view(torch.int8))
    found = bits.e4m3("codes", (256,), scratch).double() / bits.E4M3_UNIT
    finite = codes.float().isfinite()
    assert torch.equal(found[finite], codes.double()[finite])
    assert found[~finite].tolist() == [480.0, -480.0]
    scratch.take("codes", (256,), torch.int16).copy_(codes.view(torch.int8))
    assert torch.equal(bits.e4m3_in_bfloat16("codes", (256,), scratch).double(), found)
    pairs, values = torch.arange(256), torch.tensor(E2M1, dtype=torch.float64)
    expected = torch.stack((values[pairs & 15], values[pairs >> 4]), dim=-1).flatten()
    scratch.take("codes", (256,), torch.int16).copy_(pairs)
    found = bits.e2m1("codes", (256,), scratch).double() / bits.E2M1_UNIT
    assert torch.equal(found, expected)
    assert torch.equal(found.signbit(), expected.signbit())


@pytest.mark.parametrize("name", FORMATS)
@torch.no_grad()
def test_products(name: str, tile: int) -> None:
    """A linear map and experts, against the same with the unpacked matrices, in float64."""
    x = torch.randn(19, 128, generator=torch.Generator().manual_seed(1))
    for stack in (1, 2):
        linear = made(name, 1, stack, 24, 128)
        exact = F.linear(x.double(), linear.unpack(0, torch.float32).double())
        found = PackedLinear(linear)(x).double()
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=2e-5 * float(exact.abs().max()))
    gate_up, down = made(name, 5, 2, 64, 128), made(name, 5, 1, 128, 64)
    weights = torch.rand(19, 2, generator=torch.Generator().manual_seed(0))
    ids = torch.arange(38).view(19, 2) % 4  # the last expert has no token

    def plain(dtype: torch.dtype) -> Tensor:
        def run(expert: int, rows: Tensor) -> Tensor:
            up, back = gate_up.unpack(expert, torch.float32), down.unpack(expert, torch.float32)
            return F.linear(gated(F.linear(rows, up.to(dtype))), back.to(dtype))

        return routed_experts(x.to(dtype), weights, ids, 5, run)

    exact, experts = plain(torch.float64), PackedExperts(gate_up, down)
    found = experts(x, weights, ids)
    torch.testing.assert_close(found.double(), exact, rtol=0, atol=2e-5 * float(exact.abs().max()))
    found = experts(x.bfloat16(), weights, ids)
    assert spread(found, exact) <= 1.02 * spread(plain(torch.bfloat16), exact)


@torch.no_grad()
def test_embedding(tile: int) -> None:
    matrix = made("int8", 1, 1, 50, 128)
    assert isinstance(matrix, Int8)
    embedding, values = PackedEmbedding(matrix, torch.float32), matrix.unpack(0, torch.float32)
    ids = torch.tensor([[3, 49], [0, 3]])
    assert torch.equal(embedding(ids), values[ids])
    hidden = torch.randn(4, 128, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(embedding.scores(hidden), hidden @ values.T, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(embedding.scores(hidden, slice(7, 31)), hidden @ values[7:31].T, rtol=1e-5, atol=1e-4)
    shares = torch.rand(4, 50, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(embedding.mean(shares), shares @ values, rtol=1e-5, atol=1e-4)


@torch.no_grad()
def test_each_thread_unpacks_in_memory_of_its_own() -> None:
    matrices = [made("nvfp4", 3, 2, 40, 128), made("int4", 3, 2, 40, 128)]
    expected = [[joined(matrix, index, torch.bfloat16) for index in range(3)] for matrix in matrices]
    wrong: list[int] = []

    def work(which: int) -> None:
        with torch.no_grad():  # which holds for one thread
            for turn in range(60):
                if not torch.equal(joined(matrices[which], turn % 3, torch.bfloat16), expected[which][turn % 3]):
                    wrong.append(which)

    threads = [threading.Thread(target=work, args=(number % 2,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_gradients_keep_their_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed, "_TILE", 256)
    matrix = made("fp8", 1, 1, 24, 128)
    x = torch.randn(3, 128, requires_grad=True)
    PackedLinear(matrix)(x).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    torch.testing.assert_close(x.grad[0], matrix.unpack(0, torch.float32).sum(0), rtol=1e-4, atol=1e-5)
