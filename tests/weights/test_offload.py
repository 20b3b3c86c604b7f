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
from dgemma_cli.model.model import Model
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


def logits(model: Model) -> list[Tensor]:
    ids = torch.randint(0, 211, (37 + 2 * 16,), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache()
    model.encode(ids[:37], cache)
    first = model.denoise(ids[37:53], cache, None)
    return [first, model.denoise(ids[53:], cache, model.soft_embedding(first))]


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
    """One layer ahead, no copy that is not needed, and none before the work that reads the place."""
    places = [Box(torch.nan), Box(torch.nan)]
    copier = Watched(places)
    ferry = Ferry([Box(float(turn)) for turn in range(count)], places, copier)

    def compute(module: Box) -> Tensor:
        copier.order.append(("use", int(module.number)))
        copier.used[places.index(module)] = copier.marks + 1
        return module.number.clone()

    for _ in range(3):
        for turn in range(count):
            assert ferry.use(turn, compute) == turn  # type: ignore[arg-type]
    copies = [turn for what, turn in copier.order if what == "copy"]
    users = [(count + 1) // 2, count // 2]  # of each place; one alone keeps it
    assert len(copies) == sum(min(each, 1) if each < 2 else 3 * each + 1 for each in users)
    if count > 3:  # one layer ahead: a place is filled again as soon as it is free
        last = copier.order[-2 * count :]
        following = [turn + 2 if turn + 2 < count else turn % 2 for turn in range(count)]
        assert last == [step for turn in range(count) for step in (("use", turn), ("copy", following[turn]))]


def test_layers_that_differ_are_refused() -> None:
    class Wide(Box):
        def __init__(self) -> None:
            super().__init__(0.0)
            self.number = torch.zeros(2)

    with pytest.raises(ValueError, match="differ"):
        Ferry([Box(0.0), Wide()], [Box(0.0), Box(0.0)], Late())
