"""Experts in the host's memory: the same logits to the bit, whenever copies happen, and none into a place in use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import raw_files
import torch
from torch import Tensor, nn

from dgemma_cli.kernels.offload import Ferry, OffloadedExperts
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.offloading import offload
from dgemma_cli.model.programs import Calls, Run
from dgemma_cli.weights.loader import load_model


class Late:
    """A stream that copies only when it must: whoever does not wait reads what was there before."""

    def __init__(self) -> None:
        self.begun: list[tuple[Sequence[tuple[Tensor, Tensor]], Any]] = []
        self.done = 0
        self.marks = 0

    def mark(self) -> int:
        self.marks += 1
        return self.marks

    def begin(self, pairs: Sequence[tuple[Tensor, Tensor]], after: int | None) -> int:
        self.begun.append((pairs, after))
        return len(self.begun)

    def wait(self, ticket: int) -> None:
        while self.done < ticket:
            for source, target in self.begun[self.done][0]:
                target.copy_(source)
            self.done += 1


class Early(Late):
    """A stream that copies at once: whoever still computes there reads what comes next."""

    def begin(self, pairs: Sequence[tuple[Tensor, Tensor]], after: int | None) -> int:
        ticket = super().begin(pairs, after)
        self.wait(ticket)
        return ticket


def model_of(folder: Path, form: str, copier: Any = None, offloaded: int = 0, dtype: str = "float32") -> Model:
    return load_model(folder, "cpu", dtype, offloaded=offloaded, copier=copier)


class Isolated(Late):
    """As CUDA is while work is recorded: what was marked or begun in one recording has no meaning outside of it."""

    recording = joined = 0

    def mark(self) -> int:
        return self.recording

    def begin(self, pairs: Sequence[tuple[Tensor, Tensor]], after: int | None) -> int:
        assert after == self.recording, "a mark of another recording"
        return super().begin(pairs, after)

    def wait(self, ticket: int) -> None:
        assert ticket > self.joined, "a ticket of another recording"
        super().wait(ticket)


class Recorder(Calls):
    """Runs what is recorded twice at once, as recording does, and then whenever it is called, each time apart."""

    def __init__(self, copier: Isolated) -> None:
        self._copier = copier

    def record(self, work: Run) -> Run:
        def apart() -> None:
            copier = self._copier
            before, copier.recording, copier.joined = copier.recording, copier.recording + 1, len(copier.begun)
            work()
            assert copier.done == len(copier.begun), "a copy that nobody waits for"
            copier.recording, copier.joined = before, len(copier.begun)

        apart()
        return apart


@pytest.mark.parametrize("form", ["bf16", "nvfp4"])
def test_the_fused_model_and_its_recordings(tmp_path: Path, form: str) -> None:
    folder = deep(tmp_path, form)
    expected = logits(FusedModel(model_of(folder, form), PlainOperations(), Calls(), chunk=16), again=True)
    copier = Isolated()
    found = FusedModel(model_of(folder, form), PlainOperations(), Recorder(copier), chunk=16)
    offload(found, 5, copier)
    assert found.kernels.endswith("experts of 5 layers in the host's memory")
    for one, other in zip(logits(found, again=True), expected, strict=True):
        assert torch.equal(one, other)
    assert "encode" in found.new_cache().buffers.programs  # a whole canvas was encoded by a recording
    assert len(copier.begun) > 5


def logits(model: Model, again: bool = False) -> list[Tensor]:
    """Of two steps behind a prompt; then, with ``again``, of two behind the first canvas."""
    ids = torch.randint(0, 211, (37 + 2 * 16,), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache()
    model.encode(ids[:37], cache)
    first = model.denoise(ids[37:53], cache, None)
    found = [first, model.denoise(ids[53:], cache, model.soft_embedding(first))]
    if again:
        for _ in range(2):
            model.encode(ids[37:53], cache)
            found.append(model.denoise(ids[53:], cache, None))
    return found


def deep(folder: Path, form: str) -> Path:
    kinds = (["sliding_attention"] * 2 + ["full_attention"]) * 3
    return raw_files.checkpoint(folder, form, num_hidden_layers=9, layer_types=kinds)


@pytest.mark.parametrize("form", ["bf16", "nvfp4"])
@pytest.mark.parametrize("copier", [Late, Early])
@pytest.mark.parametrize("offloaded", [2, 3, 9])
def test_logits_are_the_same_to_the_bit(tmp_path: Path, form: str, copier: type[Late], offloaded: int) -> None:
    folder = deep(tmp_path, form)
    expected = logits(model_of(folder, form))
    model = model_of(folder, form, copier(), offloaded)
    carried = [isinstance(layer.experts, OffloadedExperts) for layer in model.stack.layers]
    assert carried == [index >= 9 - offloaded for index in range(9)]
    assert f"experts of {offloaded} layers in the host's memory" in model.kernels
    for _ in range(2):
        for found, wanted in zip(logits(model), expected, strict=True):
            assert torch.equal(found, wanted)


def test_a_pass_that_is_left_in_the_middle(tmp_path: Path) -> None:
    folder = deep(tmp_path, "nvfp4")
    expected = logits(model_of(folder, "nvfp4"))
    for broken in (5, 8):
        for copier in (Late(), Early()):
            model = model_of(folder, "nvfp4", copier, 5)

            def stop(*_: Any) -> None:
                raise KeyboardInterrupt

            hook = model.stack.layers[broken].post_feedforward_layernorm_2.register_forward_hook(stop)
            with pytest.raises(KeyboardInterrupt):
                logits(model)
            hook.remove()
            for found, wanted in zip(logits(model), expected, strict=True):
                assert torch.equal(found, wanted)


class Box(nn.Module):
    """Experts that are one number."""

    def __init__(self, number: float) -> None:
        super().__init__()
        self.register_buffer("number", torch.tensor([number]))


class Watched(Late):
    """Knows which place is used by work that was launched, and up to which mark."""

    def __init__(self, places: list[Box]) -> None:
        super().__init__()
        self.places = places
        self.used = [0, 0]  # the mark that comes behind the last use of each place
        self.order: list[tuple[str, int]] = []

    def begin(self, pairs: Sequence[tuple[Tensor, Tensor]], after: int | None) -> int:
        ((source, target),) = pairs
        place = next(index for index, box in enumerate(self.places) if box.number is target)
        assert (after or 0) >= self.used[place], "copied into a place that is still computed in"
        self.order.append(("copy", int(source)))
        return super().begin(pairs, after)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_the_order_of_copies(count: int) -> None:
    """Two set off with the pass; a place is filled again as soon as it is free; each pass waits for its own."""
    places = [Box(torch.nan), Box(torch.nan)]
    copier = Watched(places)
    ferry = Ferry([Box(float(turn)) for turn in range(count)], places, copier)

    def compute(module: Box) -> Tensor:
        copier.order.append(("use", int(module.number)))
        copier.used[places.index(module)] = copier.marks + 1
        return module.number.clone()

    expected = [("copy", turn) for turn in range(min(2, count))]
    for turn in range(count):
        expected += [("use", turn), *([("copy", turn + 2)] if turn + 2 < count else [])]
    for _ in range(3):
        copier.order.clear()
        with ferry.carrying():
            for turn in range(count):
                assert ferry.use(turn, compute) == turn  # type: ignore[arg-type]
        assert copier.order == expected


@pytest.mark.parametrize("count", [1, 2, 5])
def test_experts_that_nobody_uses_are_not_copied(count: int) -> None:
    """Those of the last layer, where a pass ends with its keys; the next pass has them again."""
    places = [Box(torch.nan), Box(torch.nan)]
    copier = Watched(places)
    ferry = Ferry([Box(float(turn)) for turn in range(count)], places, copier)
    for without in (1, 0):
        copier.order.clear()
        with ferry.carrying(without):
            for turn in range(count - without):
                assert ferry.use(turn, lambda module: module.number.clone()) == turn  # type: ignore[operator]
        assert copier.order == [("copy", turn) for turn in range(count - without)]


def test_no_copy_is_under_way_behind_a_pass() -> None:
    """A recorded pass copies on a stream of its own: what an earlier pass left behind would meet it there."""
    places = [Box(torch.nan), Box(torch.nan)]
    copier = Watched(places)
    ferry = Ferry([Box(float(turn)) for turn in range(5)], places, copier)
    with pytest.raises(KeyboardInterrupt), ferry.carrying():
        ferry.use(0, lambda module: torch.zeros(1))
        raise KeyboardInterrupt
    assert copier.done == len(copier.begun) == 3


def test_layers_that_differ_are_refused() -> None:
    class Wide(Box):
        def __init__(self) -> None:
            super().__init__(0.0)
            self.number = torch.zeros(2)

    with pytest.raises(ValueError, match="differ"):
        Ferry([Box(0.0), Wide()], [Box(0.0), Box(0.0)], Late())
