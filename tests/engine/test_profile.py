"""Where a step's time goes: every part is seen, nothing counts twice, and the model is as before."""

from __future__ import annotations

import time

import pytest
import tiny

from dgemma_cli.engine import profile as module
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.probe import Peak, experts_used
from dgemma_cli.engine.profile import PARTS, profile
from dgemma_cli.errors import DgemmaError

OPTIONS = Options(max_tokens=16, seed=1, steps=3, stability=3, drafts=False)


def test_all_parts_are_told_and_their_sum_is_the_steps_time() -> None:
    model = tiny.random_model()
    before = list(generate(model, [5, 6], OPTIONS))[1:-1]
    begun = time.perf_counter()
    seconds, steps = profile(model, [5, 6], OPTIONS)
    took = time.perf_counter() - begun
    assert steps == 6
    assert tuple(seconds) == PARTS
    assert all(value > 0 for value in seconds.values())
    assert 0.3 * took < sum(seconds.values()) < took  # the rest is the prompt and the commit
    assert list(generate(model, [5, 6], OPTIONS))[1:-1] == before
    assert not {"denoise", "head", "expected_embedding"} & set(vars(model))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_time_is_counted_where_it_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that only the experts, and a norm within self-conditioning, move."""
    now = [0.0]
    monkeypatch.setattr(module.time, "perf_counter", lambda: now[0])
    model = tiny.random_model()

    def slow(part: object, seconds: float) -> None:
        forward = part.forward  # type: ignore[attr-defined]

        def slowly(*arguments: object) -> object:
            now[0] += seconds
            return forward(*arguments)

        monkeypatch.setattr(part, "forward", slowly)

    slow(model.stack.layers[0].experts, 1.0)
    slow(model.self_conditioning.pre_norm, 0.25)
    seconds, steps = profile(model, [5, 6], OPTIONS)
    assert seconds["experts"] == steps  # not those of the prompt and of the commit
    assert seconds["self-conditioning"] == 0.25 * (steps - 2)  # two first steps have nothing to mix in
    assert sum(seconds.values()) == seconds["experts"] + seconds["self-conditioning"]


def test_a_model_in_one_piece_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.random_model()
    script = tiny.ScriptedModel([[3] * 8] * 2)
    model.kernels = script.kernels = "one piece"
    with pytest.raises(DgemmaError, match=r"runs as one piece \(one piece\)"):
        profile(script, [5, 6], OPTIONS)
    assert "denoise" not in vars(script)


def test_experts_are_counted_in_steps_alone() -> None:
    model = tiny.random_model()
    assert model.config.num_experts == 4
    used = experts_used(model, [5, 6], OPTIONS)
    assert used is not None
    assert 2 <= used <= 4
    # A router that sends everything to the same two.
    for layer in model.stack.layers:
        layer.router.proj.weight.zero_()
    assert experts_used(model, [5, 6, 7, 8], OPTIONS) == 2
    assert experts_used(tiny.ScriptedModel([[3] * 8] * 2), [5, 6], OPTIONS) is None


def test_a_peak_is_seen_and_then_forgotten() -> None:
    import torch

    peak = Peak(torch.device("cpu"))
    taken = torch.ones(60_000_000)
    high = peak.read()
    del taken
    peak.read()
    assert high - peak.read() > 200_000_000
