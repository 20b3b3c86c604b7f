"""End to end on the CPU: our ``generate`` beside ``transformers.generate``, same weights, same process, in turns.

    python benchmarks/cpu_against_transformers.py [--json FILE]

A random mid-size checkpoint (hidden 1024, 12 layers, 64 experts of which 8, vocabulary 32,768, canvas 256), a prompt of
512 tokens, 8 denoising steps, bf16, 2 threads. Prints seconds and their ratio, and the floor: multiply-adds of a step
over the matrix rate measured in the same run.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.diffusion_gemma import generation_diffusion_gemma as reference

from dgemma_cli.engine.events import Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.model.model import Model
from dgemma_cli.weights.loader import load_model

PROMPT, STEPS, CANVAS, VOCAB = 512, 8, 256, 32_768
HIDDEN, LAYERS, EXPERTS, TOP_K, INNER, DENSE = 1024, 12, 64, 8, 256, 768
VISION = {"model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
VISION |= {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 16}
VISION |= {"patch_size": 4, "position_embedding_size": 16}


def network() -> transformers.DiffusionGemmaForBlockDiffusion:
    text = {
        "vocab_size": VOCAB,
        "hidden_size": HIDDEN,
        "intermediate_size": DENSE,
        "moe_intermediate_size": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "global_head_dim": 256,
        "num_global_key_value_heads": 2,
        "num_experts": EXPERTS,
        "top_k_experts": TOP_K,
        "sliding_window": 1024,
        "max_position_embeddings": 8192,
        "use_bidirectional_attention": "vision",
    }
    config = transformers.DiffusionGemmaConfig(
        text_config=text, vision_config=VISION, canvas_length=CANVAS, image_token_id=VOCAB + 1
    )
    generator = torch.Generator().manual_seed(0)
    model = transformers.DiffusionGemmaForBlockDiffusion(config).eval()
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                tensor.fill_(tensor.shape[0] ** -0.25)
            elif tensor.dim() >= 2 and "vision" not in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * tensor.shape[-1] ** -0.5)
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
    model.tie_weights()
    return model  # type: ignore[no-any-return]


def multiply_adds(prompt: int) -> float:
    """Of one denoising step, attention included."""
    kv_heads, heads = {128: 4, 256: 2}, 8
    total = 0.0
    for layer in range(LAYERS):
        full = layer % 6 == 5
        dim = 256 if full else 128
        rows = heads * dim * 2 + kv_heads[dim] * dim * (1 if full else 2)
        total += rows * HIDDEN + 3 * HIDDEN * DENSE + 3 * TOP_K * HIDDEN * INNER
        total += 2 * heads * dim * (min(prompt, 1023) + CANVAS)
    total += 2 * VOCAB * HIDDEN + 3 * HIDDEN * DENSE  # the head, the soft embedding, self-conditioning
    return total * CANVAS


def matrix_rate() -> float:
    """Multiply-adds a second of a large bf16 product here and now."""
    a, b = torch.randn(1024, 4096).bfloat16(), torch.randn(4096, 4096).bfloat16()
    torch.mm(a, b)
    times = [_seconds(lambda: torch.mm(a, b)) for _ in range(9)]
    return 1024 * 4096 * 4096 / statistics.median(times)


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def run_ours(model: Model, prompt: list[int]) -> None:
    events = list(generate(model, prompt, Options(max_tokens=CANVAS, steps=STEPS, seed=1, drafts=False)))
    assert isinstance(events[-1], Finished)
    assert events[-1].statistics.steps == STEPS


def run_theirs(model: transformers.DiffusionGemmaForBlockDiffusion, prompt: list[int]) -> None:
    settings = reference.DiffusionGemmaGenerationConfig(
        max_new_tokens=CANVAS,
        max_denoising_steps=STEPS,
        sampler_config=reference.EntropyBoundSamplerConfig(entropy_bound=0.1),
        eos_token_id=[VOCAB + 5],
    )
    torch.manual_seed(1)
    generate_theirs: Any = model.generate  # how it is annotated changes from version to version
    generate_theirs(torch.tensor([prompt]), generation_config=settings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    theirs = network()
    with tempfile.TemporaryDirectory() as folder:
        theirs.save_pretrained(folder)
        ours = load_model(Path(folder), "cpu", "bfloat16")
    prompt = torch.randint(0, VOCAB, (PROMPT,), generator=torch.Generator().manual_seed(2)).tolist()
    run_ours(ours, prompt)
    run_theirs(theirs, prompt)
    times: dict[str, list[float]] = {"ours": [], "theirs": []}
    for _ in range(arguments.repetitions):
        times["ours"].append(_seconds(lambda: run_ours(ours, prompt)))
        times["theirs"].append(_seconds(lambda: run_theirs(theirs, prompt)))
    ratios = [b / a for a, b in zip(times["ours"], times["theirs"], strict=True)]
    floor = multiply_adds(PROMPT) / matrix_rate()
    figures = {
        "seconds": times,
        "ratio": statistics.median(ratios),
        "floor_of_a_step_seconds": floor,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": arguments.threads,
    }
    print(f"ours          {statistics.median(times['ours']):6.2f} s   {STEPS} steps, prompt of {PROMPT}")
    print(f"transformers  {statistics.median(times['theirs']):6.2f} s   the same")
    print(f"ratio         {figures['ratio']:6.2f}     (pairs: {', '.join(f'{ratio:.2f}' for ratio in ratios)})")
    print(f"floor         {floor:6.3f} s   a step: its multiply-adds at this machine's measured matrix rate")
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
