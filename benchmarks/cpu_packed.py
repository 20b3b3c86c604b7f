"""What packed weights cost on the CPU: a step of each format beside one of the same weights unpacked to bf16, in turns.

    python benchmarks/cpu_packed.py [--formats nvfp4 int4] [--json FILE]

Random checkpoints of the sizes of cpu_against_transformers.py (hidden 1024, 12 layers, 64 experts of which 8,
vocabulary 32,768, canvas 256), 512 tokens of prompt, bf16, 2 threads. The unpacked twin is laid out for oneDNN, as a
plain checkpoint is when it is loaded. Prints the median seconds of a step, and the median ratio of wall and CPU time.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from dgemma_cli.kernels.embedding import PackedEmbedding
from dgemma_cli.kernels.packed import PackedExperts, PackedLinear, StackedLinear
from dgemma_cli.model import kernel_choice
from dgemma_cli.model.blocking import block_weights
from dgemma_cli.model.cache import KVCache
from dgemma_cli.model.model import Model
from dgemma_cli.weights.build import build
from dgemma_cli.weights.layout import Plan
from dgemma_cli.weights.loader import load_model

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
from make_synthetic import write
from synthetic_tensors import FULL

FORMATS = ("nvfp4", "nvfp4-redhat", "int4", "fp8", "nvfp4-8bit", "int4-4bit")
SIZES = {
    "vocab_size": 32_768,
    "hidden_size": 1024,
    "intermediate_size": 768,
    "moe_intermediate_size": 256,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "num_global_key_value_heads": 2,
    "global_head_dim": 256,
    "num_experts": 64,
    "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 2,
    "max_position_embeddings": 8192,
}


def unpacked(packed: Model) -> Model:
    """The same model with plain bf16 weights, rounded once from the packed ones."""
    plain = build(packed.config, Plan(), "cpu", packed.dtype)
    places = dict(plain.named_parameters())
    for name, parameter in packed.named_parameters():
        if name in places:
            places[name].copy_(parameter)
    for name, module in packed.named_modules():
        if isinstance(module, PackedExperts):
            for part, matrix in (("gate_up_proj", module.gate_up), ("down_proj", module.down)):
                for expert in range(matrix.count):
                    places[f"{name}.{part}"][expert] = matrix.unpack(expert, packed.dtype)
        elif isinstance(module, PackedLinear | PackedEmbedding) and f"{name}.weight" in places:
            places[f"{name}.weight"].copy_(module.matrix.unpack(0, packed.dtype))
        elif isinstance(module, StackedLinear):
            places[f"{name}.weight"].copy_(torch.cat([_rows(part, packed.dtype) for part in module.parts]))
    return plain


def _rows(part: nn.Module, dtype: torch.dtype) -> Tensor:
    return part.matrix.unpack(0, dtype) if isinstance(part, PackedLinear) else part.weight  # type: ignore[return-value]


class Stepper:
    """A model with a prompt encoded, whose conditioned steps are timed."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.cache: KVCache = model.new_cache()
        ids = torch.randint(0, model.config.vocab_size, (512,), generator=torch.Generator().manual_seed(2))
        model.encode(ids, self.cache)
        self.canvas, self.soft = ids[:256], torch.zeros(256, model.config.hidden_size, dtype=model.dtype)
        self.wall: list[float] = []
        self.cpu: list[float] = []
        self.logits = self.step()
        self.wall.clear()
        self.cpu.clear()

    def step(self) -> Tensor:
        wall, cpu = time.perf_counter(), time.process_time()
        logits = self.model.denoise(self.canvas, self.cache, self.soft)
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)
        return logits


@torch.no_grad()
def compare(form: str, repetitions: int) -> dict[str, float]:
    """One format beside its twin."""
    config = copy.deepcopy(FULL)
    config["image_token_id"] = SIZES["vocab_size"] + 1  # type: ignore[operator]
    config["text_config"] |= SIZES
    del config["vision_config"]
    # Laid out for oneDNN a plain weight can no longer be read: that is put off until the twin has it.
    late = patch.object(kernel_choice, "block_weights", lambda model: None)
    with tempfile.TemporaryDirectory() as folder, late:
        packed = load_model(write(Path(folder) / form, config, form), "cpu", "bfloat16")
    plain = unpacked(packed)
    block_weights(packed)
    block_weights(plain)
    ours, twin = Stepper(packed), Stepper(plain)
    difference = float((ours.logits - twin.logits).abs().mean() / twin.logits.abs().mean())
    if not difference < 0.5:  # rounding alone sends tokens to other experts, in so random a model
        raise SystemExit(f"{form}: these are not the same weights, the logits differ by {difference:.3f} of their size")
    for _ in range(repetitions):
        ours.step()
        twin.step()
    wall = [a / b for a, b in zip(ours.wall, twin.wall, strict=True)]
    cpu = [a / b for a, b in zip(ours.cpu, twin.cpu, strict=True)]
    return {
        "step_seconds": statistics.median(ours.wall),
        "bf16_step_seconds": statistics.median(twin.wall),
        "ratio": statistics.median(wall),
        "cpu_ratio": statistics.median(cpu),
        "difference_of_logits": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    figures = {}
    print("| format | a step | bf16 of the same weights | ratio, wall | ratio, CPU time |\n|---|---|---|---|---|")
    for form in arguments.formats:
        figures[form] = found = compare(form, arguments.repetitions)
        print(
            f"| {form} | {found['step_seconds']:.3f} s | {found['bf16_step_seconds']:.3f} s "
            f"| {found['ratio']:.2f} | {found['cpu_ratio']:.2f} |",
            flush=True,
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
