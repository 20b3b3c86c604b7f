"""A cache that was cut against one that never held the rest."""

from __future__ import annotations

import pytest
import tiny
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dgemma_cli.model import cache as cache_module
from dgemma_cli.model.cache import KVCache, attend, masked_in_blocks
from dgemma_cli.model.model import Model

WINDOW = 12  # of the tiny model
CANVAS = torch.tensor([5, 9, 2, 30, 7, 7, 0, 21])


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny.random_model()


def logits(model: Model, cache: KVCache) -> torch.Tensor:
    return model.denoise(CANVAS, cache, None)


def fresh(model: Model, ids: list[int]) -> torch.Tensor:
    cache = model.new_cache()
    model.encode(torch.tensor(ids), cache)
    return logits(model, cache)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), slack=st.sampled_from([0, 1, 5, 40, 1024]))
def test_after_any_cuts_the_logits_are_those_of_a_fresh_encode(model: Model, data: st.DataObject, slack: int) -> None:
    token = st.integers(2, 36)
    ids: list[int] = []
    cache = model.new_cache(slack)
    oldest = 0  # the sliding layers hold the positions from here on
    for _ in range(data.draw(st.integers(1, 6))):
        new = data.draw(st.lists(token, min_size=1, max_size=45))
        model.encode(torch.tensor(new), cache)
        ids += new
        oldest = max(oldest, len(ids) - (WINDOW - 1 + slack))
        torch.testing.assert_close(logits(model, cache), fresh(model, ids), rtol=0, atol=5e-4)
        length = data.draw(st.one_of(st.integers(0, len(ids)), st.integers(max(0, len(ids) - slack), len(ids))))
        exact = max(0, length - (WINDOW - 1)) >= oldest
        assert cache.cut(length) is exact
        if not exact:
            return
        ids = ids[:length]
        assert cache.length == length
        if ids:
            torch.testing.assert_close(logits(model, cache), fresh(model, ids), rtol=0, atol=5e-4)


def test_a_cut_within_the_documented_slack_is_always_exact(model: Model) -> None:
    cache = tiny.random_model(context=8192).new_cache(cache_module.SLACK)
    model.encode(torch.arange(3000) % 35, cache)
    assert cache.cut(3000 - cache_module.SLACK)
    assert not cache.cut(3000 - cache_module.SLACK - 1)


def test_a_pass_that_was_interrupted_cannot_be_cut(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = model.new_cache()
    model.encode(torch.tensor([3, 4, 5]), cache)
    attend = cache_module.attend
    calls = 0

    def interrupt(*arguments: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 1:  # the last layer has none
            raise KeyboardInterrupt
        return attend(*arguments)

    monkeypatch.setattr(cache_module, "attend", interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.encode(torch.tensor([6, 7]), cache)
    assert cache.length == 3
    assert not cache.cut(3)


def test_lengths_that_are_none(model: Model) -> None:
    cache = model.new_cache()
    for length in (-1, 1):
        with pytest.raises(ValueError, match="cannot be cut"):
            cache.cut(length)


@pytest.mark.parametrize("length", [1, 5, 300])
def test_masked_attention_in_blocks(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As CUDA computes it, against the plain way, which runs here."""
    monkeypatch.setattr("dgemma_cli.model.cache._QUERIES", 128)
    generator = torch.Generator().manual_seed(length)
    q, k, v = (
        torch.randn(1, heads, size, 16, generator=generator) for heads, size in ((8, length), (2, 400), (2, 400))
    )
    mask = torch.rand(length, 400, generator=generator) < 0.3
    mask[:, 0] = True
    torch.testing.assert_close(masked_in_blocks(q, k, v, mask), attend(q, k, v, mask))
