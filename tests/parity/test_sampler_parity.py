"""The sampler's decisions against transformers' own classes, on the same logits."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.models.diffusion_gemma import generation_diffusion_gemma as reference

from dgemma_cli.sampling.acceptance import EntropyBound
from dgemma_cli.sampling.schedule import LinearSchedule
from dgemma_cli.sampling.statistics import predict
from dgemma_cli.sampling.stopping import Progress, StableAndConfident

CANVAS, VOCAB = 24, 61


def logits(seed: int, sharpness: float) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(CANVAS, VOCAB, generator=generator)
    # Some rows sure, some not, as on a real canvas.
    return rows * sharpness * torch.rand(CANVAS, 1, generator=generator)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.integers(0, 2**20), st.floats(0.1, 60), st.floats(0.001, 200), st.floats(0.3, 1.0))
def test_entropies_and_acceptance(seed: int, sharpness: float, bound: float, temperature: float) -> None:
    raw = logits(seed, sharpness)
    theirs = reference.EntropyBoundSampler(reference.EntropyBoundSamplerConfig(bound), CANVAS, VOCAB, 48)
    tempered = (raw / temperature)[None]
    blank = torch.zeros(1, CANVAS, dtype=torch.int64)
    theirs.accept_canvas(blank, blank, tempered, cur_step=1)
    expected = torch.distributions.Categorical(logits=tempered.double()).entropy()[0]
    prediction = predict(raw.clone(), temperature)
    torch.testing.assert_close(prediction.entropy.double(), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(prediction.draft, tempered[0].argmax(-1))
    torch.testing.assert_close(prediction.probabilities, tempered[0].softmax(-1))
    accepted = EntropyBound(bound).accept(prediction.entropy)
    differing = (accepted != theirs.accepted_token_mask[0]).nonzero().flatten()
    if len(differing):  # only where the sum before a position is the bound itself, but for rounding
        before = torch.stack([expected[expected < expected[index]].sum() for index in differing])
        torch.testing.assert_close(before, torch.full_like(before, bound), rtol=1e-4, atol=1e-4)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.integers(0, 3),
    st.floats(0.001, 3.0),
    st.lists(st.tuples(st.integers(0, 2), st.floats(0.5, 60)), min_size=1, max_size=8),
)
def test_stopping(stability: int, confidence: float, steps: list[tuple[int, float]]) -> None:
    """The same canvas (few seeds, so that drafts repeat) at changing sharpness: stop or not, step by step."""
    theirs = reference.StableAndConfidentStoppingCriteria(stability, confidence)
    ours = StableAndConfident(stability, confidence)
    drafts: list[Tensor] = []
    for seed, sharpness in steps:
        raw = logits(seed, 1.0) * sharpness
        mean = torch.distributions.Categorical(logits=raw.double()).entropy().mean()
        prediction = predict(raw.clone(), 1.0)
        expected = bool(theirs(prediction.draft[None], raw[None])[0])
        if abs(mean - confidence) > 1e-4:
            is_eos = prediction.draft < 0
            progress = Progress(prediction.draft, drafts, prediction.entropy, is_eos, CANVAS)
            assert ours.stop(progress) == expected
        drafts.append(prediction.draft)


@given(st.floats(0.1, 0.5), st.floats(0.6, 2.0), st.integers(1, 64), st.data())
def test_temperature(t_min: float, t_max: float, steps: int, data: st.DataObject) -> None:
    remaining = data.draw(st.integers(1, steps))
    theirs = reference.LinearTemperatureScheduleLogitsProcessor(t_min, t_max, steps)
    scores = theirs(None, torch.ones(1, dtype=torch.float64), cur_step=remaining)
    assert abs(1 / scores.item() - LinearSchedule(t_min, t_max, steps).temperature(steps - remaining + 1)) < 1e-12
