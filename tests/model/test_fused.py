"""The fused model on static buffers against the plain one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model import fused as fused_module
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls

CANVAS = torch.tensor([5, 9, 2, 30, 7, 7, 0, 21])


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny.random_model(context=1024)


@pytest.fixture(scope="module")
def fused(model: Model) -> FusedModel:
    return FusedModel(model, PlainOperations(), Calls(), chunk=16)


def ids(count: int, seed: int = 0) -> Tensor:
    return torch.randint(2, 37, (count,), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prompt", [1, 5, 8, 11, 12, 13, 30, 70, 200])
def test_steps_and_blocks_equal_the_plain_model(model: Model, fused: FusedModel, prompt: int) -> None:
    plain, static = model.new_cache(), fused.new_cache()
    for buffer in (*static.buffers.k, *static.buffers.v):
        buffer.fill_(float("nan"))  # what is not written is not read
    for encoded in (ids(prompt), CANVAS, ids(8, 1)):
        model.encode(encoded, plain)
        fused.encode(encoded, static)
        assert plain.length == static.length
        expected = model.denoise(CANVAS, plain, None)
        torch.testing.assert_close(fused.denoise(CANVAS, static, None), expected, rtol=0, atol=1e-4)
        soft = model.soft_embedding(expected / 0.7)
        expected = model.denoise(CANVAS.flip(0), plain, soft)
        torch.testing.assert_close(fused.denoise(CANVAS.flip(0), static, soft), expected, rtol=0, atol=1e-4)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), slack=st.sampled_from([0, 1, 5, 40]))
def test_after_any_cuts_the_logits_are_those_of_a_fresh_encode(
    model: Model, fused: FusedModel, data: st.DataObject, slack: int
) -> None:
    """Over many moves to the front, in the buffers of caches that are gone and hold anything."""
    cache = fused.new_cache(slack)
    text: list[int] = []
    for _ in range(data.draw(st.integers(1, 6))):
        new = data.draw(st.lists(st.integers(2, 36), min_size=1, max_size=45))
        fused.encode(torch.tensor(new), cache)
        text += new
        least = len(text) - slack
        length = data.draw(st.integers(0, len(text)) | st.integers(max(0, least), len(text)))
        exact = cache.cut(length)
        assert exact or length < least
        if not exact:
            return
        text = text[:length]
        assert cache.length == length
        plain = model.new_cache()
        if text:
            model.encode(torch.tensor(text), plain)
        expected = model.denoise(CANVAS, plain, None)
        torch.testing.assert_close(fused.denoise(CANVAS, cache, None), expected, rtol=0, atol=5e-4)


def test_operations_run_on_the_models_device(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are launched on whichever device is the calling thread's current one."""
    inside: list[torch.device] = []
    called = set()

    @contextmanager
    def on(device: torch.device) -> Iterator[None]:
        inside.append(device)
        yield
        inside.pop()

    class Watched(PlainOperations):
        def __getattribute__(self, name: str) -> object:
            if not name.startswith("__") and name not in ("name", "sample", "advance", "planes"):
                assert inside and inside[-1] == model.device, name
                called.add(name)
            return super().__getattribute__(name)

    monkeypatch.setattr(fused_module, "on", on)
    watched = FusedModel(model, Watched(), Calls(), chunk=16)
    cache = watched.new_cache()
    for count in (5, len(CANVAS)):
        watched.encode(ids(count), cache)
    watched.denoise(CANVAS, cache, watched.soft_embedding(watched.denoise(CANVAS, cache, None)))
    assert not inside
    assert {"attend_canvas", "attend_causal", "scores", "mlp"} < called


@pytest.mark.parametrize("length", [3, 40, 70])
def test_a_copy_goes_its_own_way(model: Model, fused: FusedModel, length: int) -> None:
    cache = fused.new_cache(5)
    fused.encode(ids(length), cache)
    twin = cache.copy()
    assert twin.length == length
    for own, more in ((cache, ids(9, 1)), (twin, ids(30, 2))):
        fused.encode(more, own)
        plain = model.new_cache()
        model.encode(torch.cat((ids(length), more)), plain)
        expected = model.denoise(CANVAS, plain, None)
        torch.testing.assert_close(fused.denoise(CANVAS, own, None), expected, rtol=0, atol=1e-4)


def test_a_cache_that_is_gone_leaves_its_memory_to_the_next(fused: FusedModel) -> None:
    cache = fused.new_cache()
    buffers = cache.buffers
    del cache
    again = fused.new_cache()
    assert again.buffers is buffers
    assert fused.new_cache().buffers is not buffers


def test_a_cache_grows_with_what_it_holds(model: Model) -> None:
    """Past what the buffers hold at first; what was recorded on them is forgotten."""
    long = tiny.random_model(context=12_000)
    fused = FusedModel(long, PlainOperations(), Calls())
    cache, plain = fused.new_cache(), long.new_cache()
    first = cache.buffers.full_capacity
    for count in (4000, 8, 1500):
        text = ids(count, count)
        fused.encode(text, cache)
        long.encode(text, plain)
        expected = long.denoise(CANVAS, plain, None)
        torch.testing.assert_close(fused.denoise(CANVAS, cache, None), expected, rtol=0, atol=5e-4)
        assert ("encode" in cache.buffers.programs) == (cache.length == 4008)
    assert cache.buffers.full_capacity > first
