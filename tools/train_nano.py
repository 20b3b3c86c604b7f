"""Trains the embedded model from scratch: seeded, resumable, on CPU or CUDA.

    python tools/train_nano.py --run runs/nano --steps 8000
    python tools/train_nano.py --run runs/more --start dgemma_cli/nano      goes on from exported weights

Writes to the run's folder: log.jsonl (a line every few steps), last.pt (to resume from: call it again with the same
arguments; --steps may change, the cosine schedule then follows the new number). ``tools/nano_export.py`` makes the
shipped files of it.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import nano_objective
import torch
from nano_batches import Batch, Tokens, batches
from nano_config import config
from nano_data import OPEN_WEIGHTS, WEIGHTS
from nano_muon import Muon
from nano_objective import losses, noised, use_dense_experts
from torch import Tensor
from torch.optim import AdamW, Optimizer

import dgemma_cli.kernels.reference as reference
import dgemma_cli.model.attention as attention
import dgemma_cli.model.experts as experts
import dgemma_cli.model.model as model_module
import dgemma_cli.model.norm as norm
import dgemma_cli.model.rotary as rotary
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.model.model import Model
from dgemma_cli.model.stack import Layer
from dgemma_cli.weights.loader import load_model


def fresh(vocabulary: int, seed: int) -> Model:
    """A model with random weights. Attention has no 1/sqrt(d), so the head norms start at head_dim^-0.25 each."""
    torch.manual_seed(seed)
    model = Model(ModelConfig.from_dict(config(vocabulary)))
    with torch.no_grad():
        model.embed_tokens.weight.normal_(std=model.config.hidden_size**-0.5)
        for layer, shape in zip(model.stack.layers, model.config.layers, strict=True):
            for head_norm in (cast(Layer, layer).self_attn.q_norm, cast(Layer, layer).self_attn.k_norm):
                head_norm.weight.fill_(shape.head_dim**-0.25)
    return model


def exported(folder: Path) -> Model:
    """A model with the weights of an exported one, in float32."""
    model = load_model(folder, "cpu", "float32")
    model.requires_grad_(True)
    return model


def fuse_small_operations() -> None:
    """Compile the element-wise functions of the network: on a CPU they are a third of a small model's step."""
    torch._dynamo.config.recompile_limit = 64  # with and without gradients, weights, two sizes, two dtypes
    compiled = torch.compile(norm.rms_norm, dynamic=True)

    def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        # Flat rows: the compiler then need not make one kernel for each layout.
        return compiled(x.reshape(-1, x.shape[-1]), weight, eps).view(x.shape)

    gated = torch.compile(reference.gated, dynamic=True)
    for module, name, function in (
        (norm, "rms_norm", rms_norm),
        (attention, "rms_norm", rms_norm),
        (experts, "rms_norm", rms_norm),
        (model_module, "rms_norm", rms_norm),
        (attention, "rotate", torch.compile(inspect.unwrap(rotary.rotate), dynamic=True)),
        (nano_objective, "attention_weights", torch.compile(nano_objective.attention_weights, dynamic=True)),
        (reference, "gated", gated),
        (experts, "gated", gated),
        (nano_objective, "gated", gated),
    ):
        setattr(module, name, function)


def optimizers(model: Model, rate: float) -> list[Optimizer]:
    """Muon for the hidden matrices, AdamW for embeddings, norms, router and scalars."""
    matrices: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in model.named_parameters():
        hidden = parameter.ndim >= 2 and "embed_tokens" not in name and "router" not in name
        (matrices if hidden else others).append(parameter)
    return [Muon(matrices, rate), AdamW(others, rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True)]


def rate_at(step: int, steps: int, warm_up: int) -> float:
    """Share of the full learning rate: linear warm-up, then a cosine down to zero."""
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm_up) / max(1, steps - warm_up))))


def save(path: Path, model: Model, optimisers: Iterable[Optimizer], step: int, noise: torch.Generator) -> None:
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimisers],
        "step": step,
        "noise": noise.get_state(),
    }
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


def moved(batch: Batch, device: str) -> Batch:
    return Batch(*(getattr(batch, name).to(device) for name in Batch.__slots__))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/nano"))
    parser.add_argument("--tokenizer", type=Path, default=Path("dgemma_cli/nano"))
    parser.add_argument("--start", type=Path, help="a folder with exported weights to begin with")
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=6e-3)
    parser.add_argument("--warm-up", type=int, default=150)
    parser.add_argument("--whole", type=float, default=0.25, help="share of the batches with whole canvases")
    parser.add_argument("--open", action="store_true", help="also tales and poems, which have many right answers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--fused",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="compile element-wise functions (needs a C++ compiler)",
    )
    parser.add_argument("--until", type=int, help="stop (and save) at this step instead of the last")
    arguments = parser.parse_args()
    arguments.run.mkdir(parents=True, exist_ok=True)
    last = arguments.run / "last.pt"

    tokens = Tokens(arguments.tokenizer)
    model = exported(arguments.start) if arguments.start else fresh(tokens.size, arguments.seed)
    model.to(arguments.device)
    use_dense_experts(model)
    if arguments.fused:
        fuse_small_operations()
    trained = optimizers(model, arguments.rate)
    noise = torch.Generator().manual_seed(arguments.seed)
    start = 0
    if last.exists():
        state = torch.load(last, map_location=arguments.device)
        model.load_state_dict(state["model"])
        for optimizer, own in zip(trained, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        noise.set_state(state["noise"].cpu())
        start = state["step"]
    log = (arguments.run / "log.jsonl").open("a", encoding="utf-8")
    count = sum(parameter.numel() for parameter in model.parameters())
    print(f"{count:,} parameters, {tokens.size} tokens, from step {start} to {arguments.steps}", flush=True)

    weights = WEIGHTS | (OPEN_WEIGHTS if arguments.open else {})
    stream = batches(
        tokens,
        model.config.canvas_length,
        arguments.batch,
        arguments.seed,
        start,
        arguments.whole,
        weights=weights,
    )
    began, kept = time.monotonic(), []
    for step in range(start, arguments.until or arguments.steps):
        for optimizer in trained:
            for group in optimizer.param_groups:
                group["lr"] = (
                    arguments.rate
                    * (1.0 if optimizer is trained[0] else 0.5)
                    * rate_at(step, arguments.steps, arguments.warm_up)
                )
        batch = next(stream)
        canvas, share = noised(batch.target, tokens.size, noise)
        batch = moved(batch, arguments.device)
        with torch.autocast(arguments.device, torch.bfloat16):
            encoder, decoder = losses(model, batch, canvas.to(arguments.device), share.to(arguments.device), tokens.pad)
        (encoder + decoder).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in trained:
            optimizer.step()
            optimizer.zero_grad()
        kept.append((encoder.item(), decoder.item()))
        if (step + 1) % 10 == 0:
            seconds, began = time.monotonic() - began, time.monotonic()
            row = {
                "step": step + 1,
                "encoder": round(sum(e for e, _ in kept) / len(kept), 4),
                "decoder": round(sum(d for _, d in kept) / len(kept), 4),
                "rate": trained[0].param_groups[0]["lr"],
                "examples_per_second": round(len(kept) * arguments.batch / seconds, 1),
                "clock": time.strftime("%H:%M:%S"),
            }
            kept = []
            log.write(json.dumps(row) + "\n")
            log.flush()
            left = (arguments.steps - step - 1) * seconds / 10
            print(
                f"step {step + 1}/{arguments.steps}  encoder {row['encoder']:.3f}  decoder {row['decoder']:.3f}  "
                f"{row['examples_per_second']} examples/s  {left / 60:.0f} min left",
                flush=True,
            )
        if (step + 1) % 100 == 0:
            save(last, model, trained, step + 1, noise)
    save(last, model, trained, arguments.until or arguments.steps, noise)


if __name__ == "__main__":
    main()
