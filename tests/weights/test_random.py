"""Models of random weights: every format, activations in bounds, all experts in use."""

from __future__ import annotations

import pytest
import torch

from dgemma_cli import memory
from dgemma_cli.bench.choices import Size, formats
from dgemma_cli.bench.shapes import config_of, scheme_of
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.probe import experts_used
from dgemma_cli.errors import UsageError
from dgemma_cli.weights.random import random_model

OPTIONS = Options(max_tokens=128, steps=2, stability=2, seed=1, drafts=False)


@pytest.mark.parametrize("form", formats())
def test_a_random_model_of_every_format(form: str) -> None:
    config, scheme = config_of(Size.NANO), scheme_of(form)
    model = random_model(config, scheme, "cpu", torch.float32)
    held = sum(tensor.numel() * tensor.element_size() for tensor in [*model.parameters(), *model.buffers()])
    assert held == memory.of_scheme(config, scheme, "float32").weights
    cache = model.new_cache()
    model.encode(torch.arange(40), cache)
    logits = model.denoise(torch.arange(64), cache, torch.zeros(64, config.hidden_size))
    assert bool(logits.isfinite().all())
    assert 0.1 < float(logits.std()) < 10
    used = experts_used(model, list(range(40)), OPTIONS)
    assert used is not None
    assert used > 3  # of four
    events = list(generate(model, list(range(40)), OPTIONS))
    statistics = events[-1].statistics  # type: ignore[union-attr]
    assert (statistics.tokens, statistics.blocks, statistics.steps) == (128, 2, 4)  # nothing ends it early


def test_packed_matrices_have_the_size_of_plain_ones() -> None:
    config = config_of(Size.NANO)
    for form in ("nvfp4", "nvfp4-redhat", "int4", "fp8"):
        experts = random_model(config, scheme_of(form), "cpu", torch.float32).stack.layers[0].experts
        matrix = experts.gate_up.unpack(0, torch.float32)
        assert float(matrix.std()) == pytest.approx(config.hidden_size**-0.5, rel=0.1)


def test_the_same_seed_draws_the_same_weights() -> None:
    one, other, third = (
        random_model(config_of(Size.NANO), scheme_of("int4"), "cpu", torch.float32, seed).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not all(torch.equal(one[name], third[name]) for name in one)


def test_sizes_and_formats() -> None:
    mini = memory.of_scheme(config_of(Size.MINI), scheme_of("bf16"))
    assert mini.weights / 2 == pytest.approx(0.7e9, rel=0.05)
    with pytest.raises(UsageError, match="no format 'int5'"):
        scheme_of("int5")
