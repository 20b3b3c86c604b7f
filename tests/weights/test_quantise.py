"""Rounding to codes and scales: against every scale that there is, on tiny matrices, and against the unpacking."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dgemma_cli.kernels.int4 import Int4
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.nvfp4 import E2M1, NVFP4
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.weights import quantise
from dgemma_cli.weights.quantise import Loss, to_int4, to_int8, to_nvfp4

FORMS = ["nvfp4", "int4", "int8"]


def weights(kind: str, rows: int = 24, columns: int = 256) -> Tensor:
    torch.manual_seed(rows)
    match kind:
        case "normal":
            return torch.randn(rows, columns) * 0.02
        case "heavy":
            return torch.distributions.StudentT(3.0).sample((rows, columns)) * 0.02
        case "zero rows":
            return torch.randn(rows, columns) * (torch.arange(rows)[:, None] % 3 == 0)
        case "zero":
            return torch.zeros(rows, columns)
        case "tiny":
            return torch.randn(rows, columns) * 1e-9
    return torch.randn(rows, columns) * 10.0 ** torch.randint(-6, 4, (rows, 1))  # rows of very different sizes


def packed(form: str, values: Tensor) -> tuple[Packed, Loss]:
    rows, columns = values.shape
    if form == "nvfp4":
        buffers, loss = to_nvfp4(values, float(values.abs().max()))
        module: Packed = NVFP4(1, 1, rows, columns, True, ())
    elif form == "int4":
        buffers, loss = to_int4(values, torch.float16)
        module = Int4(1, 1, rows, columns, torch.float16)
    else:
        buffers, loss = to_int8(values, torch.bfloat16)
        module = Int8(1, 1, rows, columns, torch.bfloat16)
    for name, found in buffers.items():
        module.get_buffer(name)[0, 0] = found
    return module, loss


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", ["normal", "heavy", "zero rows", "zero", "mixed"])
def test_the_loss_is_what_unpacking_shows(form: str, kind: str) -> None:
    values = weights(kind)
    module, loss = packed(form, values)
    found = module.unpack(0, torch.float32)
    assert found.isfinite().all()
    assert all(buffer.float().isfinite().all() for buffer in module.buffers())
    error, size = (found - values).double().square().sum(), values.double().square().sum()
    assert loss.error == pytest.approx(float(error), rel=1e-3, abs=1e-12)
    assert loss.values == pytest.approx(float(size), rel=1e-3, abs=1e-12)
    if kind == "normal":
        assert loss.relative < {"nvfp4": 0.084, "int4": 0.089, "int8": 0.0065}[form]


@pytest.mark.parametrize("form", FORMS)
def test_blocks_do_not_show(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    values = weights("normal", rows=29)
    whole, _ = packed(form, values)
    monkeypatch.setitem(quantise._BLOCK, "cpu", 1000)
    cut, _ = packed(form, values)
    for one, other in zip(whole.buffers(), cut.buffers(), strict=True):
        assert torch.equal(one.view(torch.uint8), other.view(torch.uint8))


@pytest.mark.parametrize("form", ["int4", "int8"])
def test_values_below_the_smallest_scale(form: str) -> None:
    module, loss = packed(form, weights("tiny"))
    assert module.unpack(0, torch.float32).isfinite().all()
    assert loss.relative < 1.0001  # with codes of zero


@pytest.mark.parametrize("kind", ["normal", "heavy"])
def test_nvfp4_scales_are_the_best_there_are(kind: str) -> None:
    """Against all E4M3 values as scales of every group."""
    values = weights(kind)
    module, loss = packed("nvfp4", values)
    groups = values.view(-1, 16)
    grid = torch.tensor(E2M1[:8])
    best = torch.full((len(groups),), torch.inf)
    for byte in range(1, 127):
        scale = torch.tensor(byte, dtype=torch.uint8).view(torch.float8_e4m3fn).float() / module.get_buffer(
            "matrix_scale"
        ).view(())
        nearest = grid[(groups.abs()[..., None] / scale - grid).abs().argmin(-1)] * scale
        best = torch.minimum(best, (nearest - groups.abs()).square().sum(-1))
    assert loss.error <= 1.001 * float(best.sum())
    plain = groups.abs().amax(-1, keepdim=True) / 6  # what rounding without a search takes
    naive = grid[(groups.abs()[..., None] / plain[..., None] - grid).abs().argmin(-1)] * plain
    assert loss.error < 0.9 * float((naive - groups.abs()).square().sum())


@pytest.mark.parametrize("kind", ["normal", "heavy"])
@pytest.mark.parametrize(("form", "group", "most"), [("int4", 32, 7), ("int8", 64, 127)])
def test_integer_scales_are_nearly_the_best_there_are(kind: str, form: str, group: int, most: int) -> None:
    """Against 400 scales of every group."""
    values = weights(kind)
    _, loss = packed(form, values)
    groups = values.view(-1, group)
    largest = groups.abs().amax(-1, keepdim=True) / most
    best = torch.full((len(groups),), torch.inf)
    for share in torch.linspace(0.5, 1.2, 400):
        rounded = (groups / (largest * share)).round().clamp(-most - 1, most) * largest * share
        best = torch.minimum(best, (rounded - groups).square().sum(-1))
    assert loss.error <= (1.04 if form == "int4" else 1.15) * float(best.sum())
