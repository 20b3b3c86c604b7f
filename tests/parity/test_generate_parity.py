"""A whole generation writes the very tokens that transformers writes when both draw the same random numbers."""

from __future__ import annotations

from pathlib import Path

import oracle
import pytest
import torch
from torch import Tensor

from dgemma_cli.engine.events import BlockCommitted, Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.weights.loader import load_model


class GlobalDraws:
    """Draws from torch's global generator, by the calls and in the order of transformers."""

    def __init__(self, canvas: int, vocab: int) -> None:
        self.canvas, self.vocab = canvas, vocab

    def noise(self) -> Tensor:
        return torch.randint(0, self.vocab, (1, self.canvas))[0]

    def pick(self, probabilities: Tensor) -> Tensor:
        return torch.multinomial(probabilities, num_samples=1)[:, 0]


@pytest.mark.parametrize(
    ("seed", "sharpness", "steps", "bound", "confidence"),
    [
        (0, 1.0, 6, 0.1, 0.005),
        (1, 1.0, 12, 40.0, 9.0),
        (2, 1.0, 9, 1e4, 0.005),
        (3, 4.0, 40, 30.0, 1.0),
        (4, 4.0, 40, 60.0, 1.0),
        (5, 1.0, 1, 0.1, 0.005),
    ],
)
def test_token_exact(tmp_path: Path, seed: int, sharpness: float, steps: int, bound: float, confidence: float) -> None:
    shape = oracle.Shape(layers="ssfsf", window=24, canvas=24, vocab=97, seed=seed, sharpness=sharpness)
    network = oracle.network(shape)
    network.set_experts_implementation("eager")
    model = load_model(oracle.save(network, shape, tmp_path), "cpu", "float32")
    prompt = torch.randint(0, shape.vocab, (1, 31), generator=torch.Generator().manual_seed(seed))

    torch.manual_seed(seed)
    settings = transformers_settings(steps, bound, confidence)
    theirs = network.generate(prompt, generation_config=settings).sequences[0, 31:].tolist()

    torch.manual_seed(seed)
    options = Options(
        preset="reference",
        max_tokens=3 * shape.canvas,
        steps=steps,
        entropy_bound=bound,
        confidence=confidence,
    )
    object.__setattr__(model, "defaults", oracle.no_eos(model.defaults))
    events = list(generate(model, prompt[0].tolist(), options, draws=[GlobalDraws(shape.canvas, shape.vocab)]))
    ours = [token for event in events if isinstance(event, BlockCommitted) for token in event.ids]
    assert ours == theirs
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "length"
    if sharpness > 1:  # these settle before the cap, so that stopping is compared as well
        assert events[-1].statistics.steps < 3 * steps


def transformers_settings(steps: int, bound: float, confidence: float) -> object:
    from transformers.models.diffusion_gemma import generation_diffusion_gemma as theirs

    return theirs.DiffusionGemmaGenerationConfig(
        max_new_tokens=72,
        max_denoising_steps=steps,
        sampler_config=theirs.EntropyBoundSamplerConfig(entropy_bound=bound),
        t_min=0.4,
        t_max=0.8,
        stability_threshold=1,
        confidence_threshold=confidence,
        eos_token_id=[-5],
    )
