"""Tiles are measured on a model's own weights, and the fastest one that computes what the usual one does is chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import gpu_weights
import pytest
import torch
from torch import Tensor

from dgemma_cli.engine import tuning
from dgemma_cli.engine.tuning import tune
from dgemma_cli.errors import UsageError
from dgemma_cli.kernels import attention, fast, grouped, tiles
from dgemma_cli.kernels.cuts import Cut, cut_of, settle, trying, unsettle
from dgemma_cli.kernels.offload import CudaCopier
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.kernels.tiles import Tile
from dgemma_cli.kernels.words import words_of
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.kernel_uses import Use, uses_of
from dgemma_cli.model.offloading import offload
from dgemma_cli.model.programs import Calls

pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp")  # of NumPy; it ends in 1 / inf
SIZES = replace(gpu_weights.TINY, canvas_length=8, sliding_window=6, num_experts=4, intermediate_size=128)


@pytest.fixture
def model(device: torch.device) -> FusedModel:
    """4-bit experts, 8-bit dense weights."""
    plain = gpu_weights.random_model(SIZES, "nvfp4+8bit", device, torch.bfloat16)
    return FusedModel(plain, fast.FastOperations(), Calls())


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches and splits: what is measured here is nothing."""
    monkeypatch.setattr(tuning, "_LAUNCHES", 2)
    monkeypatch.setattr(tuning, "_ROUNDS", 1)
    monkeypatch.setattr(attention, "SPLITS", (1, 2))


def timed(monkeypatch: pytest.MonkeyPatch, times: Callable[[int], list[float]]) -> None:
    """Make times up: of so many cuts, milliseconds a recording."""

    def milliseconds(device: torch.device, parts: Sequence[Callable[[], object]], repetitions: int) -> list[float]:
        return times(len(parts))

    monkeypatch.setattr(tuning, "milliseconds", milliseconds)


def only(monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    monkeypatch.setattr(tuning, "uses_of", lambda model: [use for use in uses_of(model) if use.kernel == kernel])


def test_every_use_is_measured_and_the_fastest_tile_chosen(model: FusedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(monkeypatch, lambda count: [5.0] * (count - 1) + [3.0])
    begun: list[Use] = []
    found = list(tune(model, begun.append))
    assert [each.use for each in found] == begun == uses_of(model)
    assert {each.use.name: each.use.launches for each in found} == {
        "gate_up nvfp4 64x64 by 16": 3,
        "down nvfp4 64x32 by 16": 3,
        "dense int8 211x64 by 16": 1,  # the head
        "gated int8 256x64 by 16": 4,  # gate and up, of the self-conditioning too
        "dense int8 64x128 by 16": 5,
        "dense int8 128x64 by 16": 2,  # queries, keys and values
        "dense int8 64x64 by 16": 2,
        "dense int8 160x64 by 16": 1,
        "attention 4/2 heads of 16 by 8 in 2": 2,
        "attention 4/1 heads of 32 by 8 in 2": 1,
    }
    for each in found:
        launches = 2 if each.use.kernel == "attention" else min(each.use.launches, 2)
        assert not each.dropped
        assert len(each.microseconds) == len(each.use.cuts) >= 2
        assert (each.chosen, each.usual) == (each.use.cuts[-1], each.use.cuts[0])
        assert (each.before, each.after) == (pytest.approx(5000 / launches), pytest.approx(3000 / launches))


@pytest.mark.parametrize(("count", "launches"), [(2, 1), (3, 0)])
def test_experts_in_the_host_s_memory_are_not_measured(model: FusedModel, count: int, launches: int) -> None:
    offload(model.origin, count, CudaCopier.__new__(CudaCopier))
    found = [use.launches for use in uses_of(model) if use.kernel in ("gate_up", "down")]
    assert found == [launches] * (2 if launches else 0)


def test_what_is_hardly_faster_is_noise(model: FusedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, "down")
    timed(monkeypatch, lambda count: [5.0] * (count - 1) + [4.95])
    (found,) = tune(model)
    assert (found.chosen, found.after) == (found.usual, found.before)


def test_each_tile_is_measured_in_turn_on_every_layer_s_weights(
    model: FusedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a comparison of each, and a round that does not count; where launches are not recorded, too."""
    launched: list[tuple[Cut | None, object]] = []
    right = grouped.grouped_down

    def down(x: Tensor, matrix: object, *rest: object, out: Tensor) -> Tensor:
        launched.append((cut_of("down nvfp4 64x32 by 16", out.device), matrix))
        return right(x, matrix, *rest, out=out)  # type: ignore[arg-type]

    monkeypatch.setattr(grouped, "grouped_down", down)
    only(monkeypatch, "down")
    (found,) = tune(model)
    (first, _, third), (usual, other) = found.use.operands, found.use.cuts
    turn = [(cut, matrix) for cut in (usual, other) for matrix in (first, third)]
    assert launched == [(usual, first), (other, first), (other, first), *turn, *turn]
    assert all(taken > 0 for taken in found.microseconds.values())


def spoiled(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor, Tensor], object]) -> Tile:
    """A tile of a product that does something else there. spoil: is given the output as it was before, and as it is."""
    other = tiles.other_tiles("down", 4)[0]
    right = grouped.grouped_down

    def down(x: Tensor, matrix: object, *rest: object, out: Tensor) -> Tensor:
        before = out.clone()
        found = right(x, matrix, *rest, out=out)  # type: ignore[arg-type]
        if cut_of("down nvfp4 64x32 by 16", out.device) == other:
            spoil(before, found)
        return found

    monkeypatch.setattr(grouped, "grouped_down", down)
    timed(monkeypatch, lambda count: [5.0] + [1.0] * (count - 1))
    only(monkeypatch, "down")
    return other


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda before, found: found[3].mul_(1.05), r"differs from the usual tile by [45]\.\d%"),
        (lambda before, found: found[5, 7:].copy_(before[5, 7:]), "not all that is to be written is written"),
        (lambda before, found: found[0].zero_(), r"differs from the usual tile by 100\.0%"),
    ],
)
def test_a_tile_that_computes_something_else_is_dropped(
    model: FusedModel, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Tensor, Tensor], object], why: str
) -> None:
    other = spoiled(monkeypatch, spoil)
    (found,) = tune(model)
    assert (found.chosen, list(found.dropped)) == (found.usual, [other])
    assert re.match(why, found.dropped[other])


def test_a_tile_that_fails_is_dropped(model: FusedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(before: Tensor, found: Tensor) -> None:
        raise RuntimeError("out of resource: shared memory,\nRequired: 200000")

    other = spoiled(monkeypatch, fail)
    (found,) = tune(model)
    assert found.dropped == {other: "RuntimeError: out of resource: shared memory, Required: 200000"}
    assert found.chosen == found.usual


def test_no_memory_is_no_fault_of_a_tile(model: FusedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(before: Tensor, found: Tensor) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    spoiled(monkeypatch, fail)
    with pytest.raises(torch.OutOfMemoryError):
        list(tune(model))


def test_plain_torch_has_no_tiles(model: FusedModel) -> None:
    for plain in (model.origin, FusedModel(model.origin, PlainOperations(), Calls())):
        with pytest.raises(UsageError, match="no tiles to measure: torch reference"):
            list(tune(plain))


@pytest.mark.parametrize(
    ("form", "kernel", "planes"),
    [
        ("nvfp4", "gate_up", 4),
        ("fp8", "gate_up", 2),
        ("bf16", "gate_up", 1),
        ("nvfp4+8bit", "dense", 2),
        ("nvfp4+4bit", "dense", 4),
        ("nvfp4+8bit", "gated", 2),
        ("nvfp4+4bit", "gated", 4),
    ],
)
def test_products_are_the_same_in_every_tile_that_is_tried(
    device: torch.device, form: str, kernel: tiles.Kernel, planes: int
) -> None:
    """On some card; warps and stages are nothing to the interpreter."""
    shapes = {
        (each.rows, each.step): each
        for others in tiles._OTHERS[tiles._kind(kernel), planes].values()
        for each in others
    }
    assert len(shapes) > 2
    model = fused(form, device)
    use = next(use for use in uses_of(model) if use.kernel == kernel and _planes(use) == planes)
    _, launch = tuning._launched(model, use)
    with trying(use.name, use.cuts[0]):
        expected = launch(0).clone()
    for other in shapes.values():
        with trying(use.name, other):
            assert tuning._differs(launch, expected) is None


def _planes(use: Use) -> int:
    return words_of(use.operands[0]).planes  # type: ignore[arg-type]


def fused(form: str, device: torch.device) -> FusedModel:
    """Of a single layer."""
    plain = gpu_weights.random_model(replace(SIZES, layers=SIZES.layers[:1]), form, device, torch.bfloat16)
    return FusedModel(plain, fast.FastOperations(), Calls())


@pytest.mark.parametrize("dim", [256, 512])
def test_attention_is_the_same_in_every_tile_that_is_tried(device: torch.device, dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(5, 4, dim, generator=generator) for _ in range(3))
    k, v = (torch.randn(2, 24, dim, generator=generator).bfloat16().to(device) for _ in range(2))
    q = (q * dim**-0.25).bfloat16().to(device)
    first, start = (torch.tensor([number], dtype=torch.int32, device=device) for number in (2, 19))
    cuts: list[Cut] = [(*sizes, 2) for card in (86, 90) for sizes in attention.other_tiles(dim, card)]
    expected = attention.attend_canvas(q, k, v, first, start, tiles=attention.Tiles(32, 32, 4, 1), splits=1)
    use = attention.canvas_use(5, 4, 2, dim, 1)
    for cut in dict.fromkeys(cuts):
        with trying(use, cut):
            found = attention.attend_canvas(q, k, v, first, start)
        torch.testing.assert_close(found.float(), expected.float(), rtol=2**-6, atol=2**-7)


def test_what_is_settled_is_worked_in_on_that_device_alone(device: torch.device) -> None:
    (use,) = [use for use in uses_of(fused("nvfp4", device)) if use.kernel == "down"]
    words = words_of(use.operands[0])  # type: ignore[arg-type]
    other, usual = use.cuts[1], use.cuts[0]
    elsewhere = torch.device("cuda", 7)
    settle(device, {use.name: other})
    settle(device, {use.name: usual})  # a second model, of a time when another was remembered
    assert tiles.tile("down", words, 16, device) == other
    assert tiles.tile("down", words, 16, elsewhere) == tiles.tile("down", words, 32, device) == usual
    with trying(use.name, usual):
        assert tiles.tile("down", words, 16, device) == usual
    unsettle(device, [use.name, "another"])
    assert tiles.tile("down", words, 16, device) == usual
