"""Load a checkpoint and denoise one canvas: seconds, and the memory that was predicted against the memory it took.

python tools/make_synthetic.py DIR --format nvfp4 --size full     # 18.8 GB
python benchmarks/memory_at_full_size.py DIR --steps 2
python benchmarks/memory_at_full_size.py DIR --device cuda --context 8192 --prompt 7000 --fit 16GB
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import torch

from dgemma_cli import memory
from dgemma_cli.commands.memory_report import Subject, judge
from dgemma_cli.engine.events import Denoised, PromptEncoded
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.fit import parse_fit
from dgemma_cli.machine import look
from dgemma_cli.weights.checkpoint import read_checkpoint
from dgemma_cli.weights.loader import load_model


def peak(device: str) -> int:
    """The most bytes this process has held so far; on a GPU what torch's allocator has held there."""
    if device != "cpu":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--prompt", type=int, default=64, metavar="TOKENS")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--fit", type=parse_fit, default="off", metavar="auto|off|SIZE")
    parser.add_argument("--context", type=int, default=0, metavar="TOKENS", help="to plan for; else the prompt")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = arguments.device
    context = max(arguments.context, arguments.prompt)
    found = judge(
        Subject.here(str(arguments.folder), read_checkpoint(arguments.folder)), look(), context, arguments.fit, device
    )
    plan = found.plan
    if plan is None:
        raise SystemExit(str(found.problem))
    print(f"loaded: {plan}", flush=True)
    figures: dict[str, Any] = {"plan": str(plan), "bytes_before": peak(device)}

    begun = time.perf_counter()
    model = load_model(arguments.folder, device, "bfloat16", recipe=plan.recipe, offloaded=plan.offloaded)
    figures["load_seconds"] = time.perf_counter() - begun
    figures["weights_bytes"] = sum(
        tensor.numel() * tensor.element_size()
        for tensor in [*model.parameters(), *model.buffers()]
        if tensor.device == model.device
    )
    figures["load_gb_per_second"] = figures["weights_bytes"] / figures["load_seconds"] / 1e9
    figures["peak_bytes_loaded"] = peak(device)
    print(json.dumps(figures), flush=True)

    ids = torch.randint(0, model.config.vocab_size, (arguments.prompt,)).tolist()
    options = Options(max_tokens=model.config.canvas_length, steps=arguments.steps, seed=0, drafts=True)
    figures["step_seconds"] = []
    last = time.perf_counter()
    for event in generate(model, ids, options):
        now = time.perf_counter()
        if isinstance(event, PromptEncoded):
            figures["prompt_seconds"] = now - last
            print(f"prompt of {len(ids)} tokens: {now - last:.1f} s", flush=True)
        elif isinstance(event, Denoised):
            figures["step_seconds"].append(now - last)
            print(f"step {event.step}: {now - last:.1f} s, peak so far {peak(device) / 1e9:.2f} GB", flush=True)
        last = now
    figures["peak_bytes"] = peak(device)
    kind: memory.Kind = "cpu" if device == "cpu" else "cuda"
    footprint = memory.of_checkpoint(read_checkpoint(arguments.folder), recipe=plan.recipe)
    needs = footprint.needs(arguments.prompt, kind, plan.offloaded)
    # What the process itself takes is no part of what CUDA's allocator holds.
    figures["predicted_bytes"] = needs.total - (needs.process if kind == "cuda" else 0)
    figures["predicted_over_measured"] = figures["predicted_bytes"] / figures["peak_bytes"]
    print(json.dumps(figures, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
