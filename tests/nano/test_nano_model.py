"""The shipped model: the same network in transformers, small enough, and as good as its card says."""

from __future__ import annotations

import json
from pathlib import Path

import oracle
import pytest
import torch
from eval_nano import DEMONSTRATIONS, Score, answer, judge
from nano_data import distinct
from transformers import DiffusionGemmaForBlockDiffusion

import dgemma_cli
from dgemma_cli.model.model import Model
from dgemma_cli.prompting.prompter import Message, Prompter
from dgemma_cli.weights.loader import load_model

NANO = Path(dgemma_cli.__file__).parent / "nano"
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(NANO, "cpu", "float32")


@pytest.fixture(scope="module")
def prompter() -> Prompter:
    return Prompter.load(NANO)


def test_small_enough_for_the_wheel() -> None:
    assert sum(file.stat().st_size for file in NANO.iterdir()) <= 12 * MEBIBYTE


def test_the_same_logits_in_transformers(model: Model, prompter: Prompter) -> None:
    network, told = DiffusionGemmaForBlockDiffusion.from_pretrained(NANO, dtype=torch.float64, output_loading_info=True)
    network.set_experts_implementation("eager")
    assert not told["unexpected_keys"]
    assert not told["mismatched_keys"]
    assert all("vision" in key for key in told["missing_keys"])

    ids = prompter.encode([Message("user", "Sort these words: Berlin, Oslo, Athens")])
    prompt = torch.tensor(ids)
    canvas = torch.randint(model.config.vocab_size, (64,), generator=torch.Generator().manual_seed(0))
    cache = model.new_cache()
    model.encode(prompt, cache)
    first = model.denoise(canvas, cache, None)
    second = model.denoise(canvas, cache, model.soft_embedding(first / 0.6))

    their_cache = oracle.new_cache(network)
    with torch.no_grad():
        their_first = network(input_ids=prompt[None], decoder_input_ids=canvas[None], **their_cache).logits[0]
        their_second = network(
            decoder_input_ids=canvas[None],
            self_conditioning_logits=(their_first / 0.6)[None].to(network.dtype),
            **their_cache,
        ).logits[0]
    for found, reference in ((first, their_first), (second, their_second)):
        assert (found - reference).abs().max() < 2e-5 * reference.abs().max()


@pytest.mark.parametrize(("prompt", "expected"), DEMONSTRATIONS)
def test_demonstrations(model: Model, prompter: Prompter, prompt: str, expected: str) -> None:
    for seed in range(3):
        assert answer(model, prompter, prompt, seed)[0] == expected


def test_regression(model: Model, prompter: Prompter) -> None:
    """A short evaluation with fixed seeds gives the very counts it gave when the model was shipped."""
    expected = json.loads((Path(__file__).parent / "expected.json").read_text())
    for family, counts in expected.items():
        score: Score = judge(model, prompter, distinct(family, "heldout", 4, 1), 1, [])
        assert {"right": score.right, "steps": score.steps, "valid_tokens": score.valid_tokens} == counts, family
