"""Training sees what inference sees, its shortcuts compute the same function, and a resumed run goes on as it was."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch
from nano_batches import Batch, Tokens, batches, collate
from nano_export import export
from nano_muon import Muon, orthogonal
from nano_objective import TrainingMemory, losses, noised, use_dense_experts
from train_nano import fresh, rate_at

import dgemma_cli
from dgemma_cli.model.model import Model
from dgemma_cli.weights.loader import load_model

ROOT = Path(__file__).parents[2]
NANO = Path(dgemma_cli.__file__).parent / "nano"
TOKENS = Tokens(NANO)
CANVAS = 64


def a_batch(size: int = 6, seed: int = 0, whole: float = 1.0) -> Batch:
    return next(batches(TOKENS, CANVAS, size, seed, 0, whole))


@pytest.fixture(scope="module")
def model() -> Model:
    return fresh(TOKENS.size, 0)


def test_training_gives_the_logits_of_inference(model: Model) -> None:
    """Padded rows of several lengths, some longer than the window, and canvases behind the first."""
    rows = [
        ([2, *range(20, 20 + n)], list(range(40, 40 + reply)), block)
        for n, reply, block in ((5, 9, 0), (150, 30, 0), (40, 100, 1))
    ]
    batch = collate(rows, CANVAS, TOKENS.pad, whole=True)
    canvas, _ = noised(batch.target, TOKENS.size, torch.Generator().manual_seed(0))
    soft = torch.randn(len(rows), CANVAS, model.config.hidden_size, generator=torch.Generator().manual_seed(1))
    memory = TrainingMemory(model.config, batch.text.shape[1], batch.starts, CANVAS)
    with torch.no_grad():
        model.run_encoder(batch.text, torch.arange(batch.text.shape[1])[None].expand_as(batch.text), memory)
        found = model.head(model.run_decoder(canvas, soft, batch.starts[:, None] + torch.arange(CANVAS)[None], memory))
    for row, start in enumerate(batch.starts.tolist()):
        cache = model.new_cache()
        model.encode(batch.text[row, :start], cache)
        expected = model.denoise(canvas[row], cache, soft[row])
        assert torch.allclose(found[row], expected, atol=2e-4)


def test_dense_experts_are_the_same_function(model: Model) -> None:
    x = torch.randn(50, model.config.hidden_size, generator=torch.Generator().manual_seed(0))
    other = fresh(TOKENS.size, 0)
    use_dense_experts(other)
    for layer, dense in zip(model.stack.layers, other.stack.layers, strict=True):
        weights, experts = layer.router(x)
        assert type(dense.experts) is not type(layer.experts)
        assert torch.allclose(dense.experts(x, weights, experts), layer.experts(x, weights, experts), atol=1e-5)


def test_noise_keeps_or_replaces_by_its_share() -> None:
    target = torch.zeros(2000, CANVAS, dtype=torch.int64)
    canvas, share = noised(target, 1000, torch.Generator().manual_seed(0))
    replaced = (canvas != target).float().mean(dim=1, keepdim=True)
    assert (replaced - share).abs().mean() < 0.05
    assert abs(float(share.mean()) - 2 / 3) < 0.02  # the larger of two uniform draws
    assert canvas.unique().numel() > 950


def test_losses_reach_every_parameter_and_ignore_the_prompt() -> None:
    model = fresh(TOKENS.size, 0)
    use_dense_experts(model)
    batch = a_batch()
    canvas, share = noised(batch.target, TOKENS.size, torch.Generator().manual_seed(0))
    encoder, decoder = losses(model, batch, canvas, share, TOKENS.pad)
    (encoder + decoder).backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    # What stands behind the end of turn is padding; the losses must not depend on it.
    text = batch.text.clone()
    for row, length in enumerate(batch.lengths.tolist()):
        text[row, length:] = 77
    changed = dataclasses.replace(batch, text=text)
    for before, after in zip((encoder, decoder), losses(model, changed, canvas, share, TOKENS.pad), strict=True):
        assert torch.allclose(before, after, atol=1e-5)


def test_canvases_are_cut_only_behind_the_reply() -> None:
    for batch in islice(batches(TOKENS, CANVAS, 8, 0, 0, whole=0.0), 40):
        if batch.target.shape[1] < CANVAS:
            assert (batch.target[:, -1] == TOKENS.pad).all()
        for row, (prompt, length, start) in enumerate(
            zip(batch.prompts.tolist(), batch.lengths.tolist(), batch.starts.tolist(), strict=True)
        ):
            assert (start - prompt) % CANVAS == 0
            own = batch.text[row, start : min(length, start + CANVAS)]
            assert torch.equal(batch.target[row, : len(own)], own)
            assert batch.text[row, length - 1] == TOKENS.end
            assert own.numel() > 0


def test_a_skipped_stream_goes_on_where_the_other_is() -> None:
    whole = list(islice(batches(TOKENS, CANVAS, 4, 5, 0, 0.5), 40))
    resumed = list(islice(batches(TOKENS, CANVAS, 4, 5, 35, 0.5), 5))
    for one, other in zip(whole[35:], resumed, strict=True):
        assert torch.equal(one.text, other.text)
        assert torch.equal(one.target, other.target)


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 16, 16)])
def test_orthogonal_matrices(shape: tuple[int, ...]) -> None:
    found = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    values = torch.linalg.svdvals(found)
    assert values.min() > 0.5
    assert values.max() < 1.4


def test_muon_descends_on_matrices_and_stacks() -> None:
    torch.manual_seed(0)
    goal = torch.randn(2, 6, 10)
    stack, flat = torch.zeros(2, 6, 10, requires_grad=True), torch.zeros(6, 10, requires_grad=True)
    optimizer = Muon([stack, flat], lr=0.05)
    for _ in range(250):
        loss = (stack - goal).square().mean() + (flat - goal[0]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_rate_warms_up_and_ends_at_zero() -> None:
    rates = [rate_at(step, 100, 10) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == 1.0
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] < 0.001


def test_export_and_load_give_the_model_back(tmp_path: Path) -> None:
    model = fresh(TOKENS.size, 3)
    with torch.no_grad():
        for number, layer in enumerate(model.stack.layers):
            layer.encoder_scalar.fill_(0.5 + number)
            layer.decoder_scalar.fill_(0.25 + number)
        for parameter in model.parameters():
            parameter.copy_(parameter.to(torch.bfloat16))
    export(model.state_dict(), TOKENS.size, tmp_path)
    loaded = load_model(tmp_path, "cpu", "float32")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def trained(folder: Path, *arguments: str) -> dict[str, torch.Tensor]:
    command = [sys.executable, ROOT / "tools/train_nano.py", "--run", folder, "--tokenizer", NANO, "--no-fused"]
    subprocess.run([*command, "--batch", "2", "--steps", "6", "--warm-up", "2", *arguments], cwd=ROOT, check=True)
    state: dict[str, torch.Tensor] = torch.load(folder / "last.pt")["model"]
    return state


def test_a_resumed_run_ends_where_an_unbroken_one_ends(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole")
    half = trained(tmp_path / "parts", "--until", "3")
    parts = trained(tmp_path / "parts")
    for name, tensor in whole.items():
        assert torch.allclose(parts[name], tensor, rtol=1e-3, atol=1e-4), name
    assert not torch.allclose(half["embed_tokens.weight"], whole["embed_tokens.weight"], atol=1e-3)
