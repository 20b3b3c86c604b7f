"""Sampler policies on nano's held-out jobs: what each saves in passes and what it costs in right answers.

    python benchmarks/sampler.py                      the presets, 24 prompts of each family
    python benchmarks/sampler.py --candidates         and the policies that were tried and not taken
    python benchmarks/sampler.py --json FILE --svg FILE

Every policy answers the same prompts from the same seeds. ``exact``: right to the letter, with its 95 % interval
(Wilson). ``passes``: all denoising steps and commit passes, beside those of the reference; ``short``: the same over the
answers under a quarter of a canvas. Tokens per forward and effective steps are the technical report's.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import torch
from nano_data import distinct
from nano_jobs import FAMILIES, Sample

from dgemma_cli.bench.statistics import interval
from dgemma_cli.engine.events import BlockCommitted, Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.model.model import Model
from dgemma_cli.prompting.prompter import Message, Prompter
from dgemma_cli.sampling.presets import PRESETS, Preset
from dgemma_cli.weights.loader import load_model

NANO = Path(__file__).parent.parent / "dgemma_cli" / "nano"

CANDIDATES = {
    "no confirming step under 0.05 nats": Preset(settled_reply=True, sure=0.05, horizon=48),
    "under 0.2": Preset(settled_reply=True, sure=0.2, horizon=48),
    "under 0.5": Preset(settled_reply=True, sure=0.5, horizon=48),
    "under 1": Preset(settled_reply=True, sure=1.0, horizon=48),
    "under 0.5, bound 1": Preset(settled_reply=True, sure=0.5, horizon=48, entropy_bound=1.0),
    "under 0.5, horizon 16, bound 0.3": Preset(settled_reply=True, sure=0.5, horizon=16, entropy_bound=0.3),
    "under 0.7, horizon 16": Preset(settled_reply=True, sure=0.7, horizon=16),
    "under 0.5, horizon 4": Preset(settled_reply=True, sure=0.5, horizon=4),
    "under 1.4, horizon 8, bound 1": Preset(settled_reply=True, sure=1.4, horizon=8, entropy_bound=1.0),
    "bound 0.03": Preset(settled_reply=True, entropy_bound=0.03),
}


@dataclass(slots=True)
class Tally:
    """Over all prompts of one policy. passes: of each answer; short: whether it is under a quarter of a canvas."""

    right: list[bool] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    short: list[bool] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # of each canvas
    capped: int = 0
    valid: int = 0
    weighted: float = 0.0


def ask(model: Model, prompter: Prompter, sample: Sample, seed: int, preset: Preset, tally: Tally) -> None:
    ids: list[int] = []
    before = tally.valid
    prompt = prompter.encode([Message("user", sample.prompt)])
    for event in generate(model, prompt, Options(seed=seed, drafts=False, preset=preset)):
        if isinstance(event, BlockCommitted):
            ids.extend(event.ids)
            tally.steps.append(event.steps)
            tally.capped += not event.converged
        elif isinstance(event, Finished):
            found = event.statistics
            tally.valid += found.valid_tokens
            tally.passes.append(found.steps + found.blocks - 1)
            tally.weighted += found.effective_steps * found.valid_tokens
    tally.right.append(sample.check(prompter.reply(ids).answer))
    tally.short.append(tally.valid - before < model.config.canvas_length / 4)


def measure(preset: Preset, folder: Path, count: int, seed: int) -> Tally:
    """All families under one policy; runs in a process of its own, on one thread."""
    torch.set_num_threads(1)
    model = load_model(folder, "cpu", "float32")
    prompter = Prompter.load(folder)
    tally = Tally()
    for family in FAMILIES:
        for number, sample in enumerate(distinct(family, "heldout", count, seed)):
            ask(model, prompter, sample, seed + number, preset, tally)
    return tally


def row(name: str, tally: Tally, reference: Tally) -> dict[str, Any]:
    low, high = interval(sum(tally.right), len(tally.right))

    def saved(short_only: bool) -> float:
        chosen = [i for i, short in enumerate(reference.short) if short or not short_only]
        return 1 - sum(tally.passes[i] for i in chosen) / sum(reference.passes[i] for i in chosen)

    ordered = sorted(tally.steps)
    return {
        "policy": name,
        "prompts": len(tally.right),
        "exact": sum(tally.right) / len(tally.right),
        "exact_low": low,
        "exact_high": high,
        "passes_saved": saved(False),
        "passes_saved_short": saved(True),
        "steps_mean": statistics.mean(tally.steps),
        "steps_p50": ordered[len(ordered) // 2],
        "steps_p90": ordered[int(len(ordered) * 0.9)],
        "capped_share": tally.capped / len(tally.steps),
        "tokens_per_forward": tally.valid / sum(tally.passes),
        "effective_steps": tally.weighted / tally.valid,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown."""
    columns = (
        "policy",
        "exact (95 %)",
        "passes saved",
        "short answers",
        "steps mean / p50 / p90",
        "at the cap",
        "tok/fwd",
    )
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for found in rows:
        cells = (
            found["policy"],
            f"{found['exact']:.1%} ({found['exact_low']:.1%}–{found['exact_high']:.1%})",
            f"{found['passes_saved']:.1%}",
            f"{found['passes_saved_short']:.1%}",
            f"{found['steps_mean']:.2f} / {found['steps_p50']} / {found['steps_p90']}",
            f"{found['capped_share']:.1%}",
            f"{found['tokens_per_forward']:.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=NANO)
    parser.add_argument("--count", type=int, default=24, help="held-out prompts of each family")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--candidates", action="store_true", help="also the policies that were not taken")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    policies = PRESETS | (CANDIDATES if arguments.candidates else {})
    run = partial(measure, folder=arguments.model, count=arguments.count, seed=arguments.seed)
    with ProcessPoolExecutor(arguments.processes) as pool:
        tallies = dict(zip(policies, pool.map(run, policies.values()), strict=True))
    rows = [row(name, tally, tallies["reference"]) for name, tally in tallies.items()]
    print(table(rows))
    if arguments.json:
        settings = {name: asdict(preset) for name, preset in policies.items()}
        document = {"rows": rows, "policies": settings, "seed": arguments.seed, "torch": torch.__version__}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
