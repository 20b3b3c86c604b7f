"""A whole model on the Triton kernels: steps and encoder passes against the plain model."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import gpu_weights
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_cli.engine.comparison import compare
from dgemma_cli.engine.denoise import denoise
from dgemma_cli.engine.events import BlockCommitted, Denoised
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.graphed import graphed
from dgemma_cli.engine.options import Options
from dgemma_cli.kernels.packed import Packed
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.model import Model
from dgemma_cli.model.programs import Calls

pytest.importorskip("triton")

LONG = 40  # tokens: more than the window of 20, and two passes of the encoder


def network(form: str, dtype: torch.dtype, device: torch.device, **sizes_of_its_own: int) -> Model:
    sizes = replace(gpu_weights.TINY, sliding_window=20, layers=gpu_weights.TINY.layers[1:], **sizes_of_its_own)
    return gpu_weights.random_model(sizes, form, device, dtype)


def passes(model: Model, prompt: int, blocks: bool = True) -> list[Tensor]:
    """The logits of a self-conditioned step behind a prompt, and of a first one behind a block."""
    config, device = model.config, model.device
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, config.vocab_size, (prompt + 3 * config.canvas_length,), generator=generator).to(device)
    text, canvas, block, other = ids.split([prompt, *(config.canvas_length,) * 3])
    soft = torch.randn(config.canvas_length, config.hidden_size, generator=generator).to(device, model.dtype)
    cache = model.new_cache()
    model.encode(text, cache)
    found = [model.denoise(canvas, cache, soft)]
    if blocks:
        model.encode(block, cache)
        found.append(model.denoise(other, cache, None))
    return found


@pytest.mark.parametrize(
    ("form", "prompt"), [("bf16", LONG), ("nvfp4", 5), ("nvfp4-redhat", 5), ("int4", 5), ("fp8", 5)]
)
def test_bfloat16_is_as_near_the_truth_as_the_plain_model(device: torch.device, form: str, prompt: int) -> None:
    """The truth is the same weights, unpacked in float32 and multiplied in it. Every token goes to all experts: where
    two of them are as good as tied, a model may take either, and that says nothing of its precision.
    """
    from dgemma_cli.kernels.fast import FastOperations

    model = network(form, torch.bfloat16, device, num_experts=4, top_k_experts=4)
    truth = copy.deepcopy(model)
    for parameter in truth.parameters():
        parameter.data = parameter.data.float()
    fused = FusedModel(model, FastOperations(), Calls(), chunk=32)
    found = [passes(each, prompt, blocks=form == "bf16") for each in (truth, model, fused)]
    for exact, plain, fast in zip(*found, strict=True):
        assert (fast - exact).abs().mean() < 1.1 * (plain - exact).abs().mean()


LAYERS = {
    "nvfp4": "TORCH heads attend merge TORCH norms TORCH gated TORCH",
    "nvfp4-redhat": "TORCH heads attend merge TORCH norms linear linear",
    "int4": "linear heads attend merge linear norms TORCH gated TORCH",
    "nvfp4+8bit": "linear heads attend merge linear norms linear linear",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="launches are counted in the interpreter")
@pytest.mark.parametrize("form", LAYERS)
def test_launches_of_a_layer(monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    """Each in the order of the network, TORCH for a product of torch's. Behind the dense MLP come the router and the
    experts, in all formats alike.
    """
    from triton.runtime.interpreter import GridExecutor

    from dgemma_cli.kernels import attention
    from dgemma_cli.kernels.fast import FastOperations

    launched: list[str] = []
    call, product = GridExecutor.__call__, F.linear

    def launch(executor: Any, *args: Any, **kwargs: Any) -> None:
        launched.append(executor.fn.__name__.removeprefix("_"))
        call(executor, *args, **kwargs)

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        launched.append("TORCH")
        return product(x, weight)

    model = network(form, torch.bfloat16, torch.device("cpu"), intermediate_size=64, num_experts=4)
    fused = FusedModel(model, FastOperations(), Calls(), chunk=32)
    cache = fused.new_cache()
    monkeypatch.setattr(GridExecutor, "__call__", launch)
    monkeypatch.setattr(F, "linear", linear)
    monkeypatch.setattr(attention, "_splits", lambda *_: 2)  # as on a GPU that has multiprocessors for it
    fused.decode(torch.arange(16), None, cache.buffers)
    names = {"split_heads": "heads", "attend_tile": "attend", "residual_norms": "norms"}
    layers = " ".join(names.get(name, name) for name in launched).split("combine")
    assert layers[1].strip() == f"{LAYERS[form]} TORCH route group gate_up down"
    assert layers[2:] == [""]


def test_planes_are_written_where_they_are_read(device: torch.device) -> None:
    """Bit for bit what plain rows give, which are laid out before each product."""
    from dgemma_cli.kernels.fast import FastOperations

    class InRows(FastOperations):
        def planes(self, module: nn.Module) -> int:
            return 1

    model = network("nvfp4+8bit", torch.bfloat16, device, intermediate_size=64, num_experts=4)
    found = [
        passes(FusedModel(model, each, Calls(), chunk=32), 5, blocks=False) for each in (FastOperations(), InRows())
    ]
    for mine, theirs in zip(*found, strict=True):
        assert torch.equal(mine, theirs)


def test_nothing_is_unpacked_by_torch(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a packed head takes several canvases at once, as --best-of and the plain loop have it."""
    from dgemma_cli.kernels.fast import FastOperations

    model = network("nvfp4+8bit", torch.bfloat16, device, intermediate_size=64, num_experts=4)
    fused = FusedModel(model, FastOperations(), Calls(), chunk=32)
    for name in ("unpack", "tiles"):
        monkeypatch.setattr(Packed, name, lambda *_: pytest.fail("a matrix was unpacked"))
    options = Options(best_of=2, max_tokens=16, steps=2, seed=0, preset="reference", stability=100)
    events = list(generate(fused, [5, 6, 7], options))
    assert [event.steps for event in events if isinstance(event, BlockCommitted)] == [2]


def test_the_comparison_at_load_finds_nothing_wrong(device: torch.device) -> None:
    from dgemma_cli.kernels.fast import FastOperations

    model = network("nvfp4", torch.bfloat16, device, num_experts=4, max_context=40)
    found = compare(FusedModel(model, FastOperations(), Calls(), chunk=32))
    assert found.wrong is None
    assert found.network < 0.02


def test_float32_but_for_the_products_is_the_plain_model(device: torch.device) -> None:
    """The products take bfloat16 only; all else of a pass, to the last digits."""
    from dgemma_cli.kernels.fast import FastOperations

    class ButProducts(FastOperations):
        planes, linear, mlp = PlainOperations.planes, PlainOperations.linear, PlainOperations.mlp
        experts, scores = PlainOperations.experts, PlainOperations.scores

    model = network("bf16", torch.float32, device)
    fused = FusedModel(model, ButProducts(), Calls(), chunk=32)
    for plain, fast in zip(passes(model, LONG), passes(fused, LONG), strict=True):
        torch.testing.assert_close(fast, plain, rtol=0, atol=2e-5 * float(plain.abs().max()))


def test_the_loop_on_the_device_writes_what_the_plain_loop_writes(device: torch.device) -> None:
    """The same passes; beside them kernels decide, not torch on the host. Every token goes to all experts: of two that
    are as good as tied, probabilities that were rounded otherwise would choose the other one.
    """
    from dgemma_cli.kernels.fast import FastOperations

    model = network("bf16", torch.bfloat16, device, num_experts=4, top_k_experts=4)
    fused = FusedModel(model, FastOperations(), Calls(), chunk=32)
    options = Options(max_tokens=24, steps=3, seed=1, entropy_bound=6.0, confidence=1.5)
    found, expected = (list(generate(fused, [5, 6, 7], options, denoiser=loop)) for loop in (graphed, denoise))
    assert len(found) == len(expected)
    for mine, plain in zip(found, expected, strict=True):
        if isinstance(mine, Denoised) and isinstance(plain, Denoised):
            assert mine.entropy == pytest.approx(plain.entropy, abs=1e-3)
            assert replace(mine, entropy=plain.entropy) == plain
        elif isinstance(mine, BlockCommitted):
            assert mine == plain
