"""Judges the embedded model on held-out jobs, with the package's own engine and the reference sampler.

    python tools/eval_nano.py            a table
    python tools/eval_nano.py --json     one JSON object

A family's *right* is the share of its prompts answered right: to the letter, or where many answers are right (--family
tale, --family poem), by a program that reads them. Of the right tales and poems, *unseen* counts those made of choices
that training never drew together: by chance a tenth. Tokens per forward and effective steps are as in the technical
report: valid tokens / (steps + canvases - 1), and steps weighted by the canvas's valid tokens.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from nano_data import distinct, split_of
from nano_jobs import FAMILIES
from nano_sample import Sample
from nano_tales import OPEN, parsed

from dgemma_cli.engine.events import BlockCommitted, Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.model.model import Model
from dgemma_cli.prompting.prompter import Message, Prompter
from dgemma_cli.weights.loader import load_model

NANO = Path(__file__).parent.parent / "dgemma_cli" / "nano"
LONGEST = 256  # tokens; no right answer is half as long, and one that runs away is wrong anyway
DEMONSTRATIONS = (
    ("Berlin, Oslo, Athens\n\nSort these words:", "Athens, Berlin, Oslo"),
    ("Sort these words: Berlin, Oslo, Athens", "Athens, Berlin, Oslo"),
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Hello!", "Hello! How can I help you?"),
)


@dataclass(slots=True)
class Score:
    """Counts over the prompts of one family."""

    prompts: int = 0
    right: int = 0
    unseen: int = 0
    valid_tokens: int = 0
    steps: int = 0
    canvases: int = 0
    capped: int = 0
    forwards: int = 0
    weighted_steps: float = 0.0

    def add(self, other: Score) -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def figures(self) -> dict[str, Any]:
        return {
            "prompts": self.prompts,
            "right": round(self.right / self.prompts, 4),
            "unseen": self.unseen,
            "tokens_per_forward": round(self.valid_tokens / self.forwards, 3),
            "effective_steps": round(self.weighted_steps / self.valid_tokens, 3),
            "canvases": self.canvases,
            "capped_share": round(self.capped / self.canvases, 4),
        }


def answer(model: Model, prompter: Prompter, prompt: str, seed: int) -> tuple[str, Score]:
    """The reply to one prompt, and what it took."""
    score = Score(prompts=1)
    ids: list[int] = []
    options = Options(seed=seed, max_tokens=LONGEST, drafts=False, preset="reference")
    for event in generate(model, prompter.encode([Message("user", prompt)]), options):
        if isinstance(event, BlockCommitted):
            ids.extend(event.ids)
            score.capped += not event.converged
        elif isinstance(event, Finished):
            found = event.statistics
            score.valid_tokens, score.steps, score.canvases = found.valid_tokens, found.steps, found.blocks
            score.forwards = found.steps + found.blocks - 1
            score.weighted_steps = found.effective_steps * found.valid_tokens
    return prompter.reply(ids).answer, score


def judge(model: Model, prompter: Prompter, samples: list[Sample], seed: int, failures: list[dict[str, str]]) -> Score:
    """All samples of a family; wrong answers are added to ``failures``."""
    total = Score()
    for number, sample in enumerate(samples):
        reply, score = answer(model, prompter, sample.prompt, seed + number)
        if sample.check(reply):
            score.right = 1
            score.unseen = _unseen(sample, reply)
        else:
            failures.append(
                {"family": sample.family, "prompt": sample.prompt, "expected": sample.answer, "reply": reply}
            )
        total.add(score)
    return total


def _unseen(sample: Sample, reply: str) -> bool:
    """Whether a reply is a tale or poem whose choices are held out."""
    tale = parsed(reply.strip(), poem=sample.family == "poem") if sample.checker else None
    return tale is not None and split_of(Sample(sample.family, sample.prompt, tale.text, tale.content)) == "heldout"


def demonstrations(model: Model, prompter: Prompter, seeds: int) -> dict[str, int]:
    """How many of ``seeds`` seeds answer each demonstration right."""
    return {
        prompt: sum(answer(model, prompter, prompt, seed)[0].strip() == expected for seed in range(seeds))
        for prompt, expected in DEMONSTRATIONS
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=NANO, help="a folder with the model's files")
    parser.add_argument("--count", type=int, default=20, help="held-out prompts of each family")
    parser.add_argument(
        "--family", action="append", choices=[*FAMILIES, *OPEN], help="only this family (may be repeated)"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--demo-seeds", type=int, default=20, help="seeds for each demonstration prompt")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--failures", action="store_true", help="show the wrong answers (on stderr)")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # so small a network is faster on one thread, and the figures do not depend on more
    began = time.monotonic()
    model = load_model(arguments.model, "cpu", arguments.dtype)
    prompter = Prompter.load(arguments.model)
    failures: list[dict[str, str]] = []
    families: dict[str, dict[str, Any]] = {}
    total = Score()
    for family in arguments.family or FAMILIES:
        samples = distinct(family, "heldout", arguments.count, arguments.seed)
        score = judge(model, prompter, samples, arguments.seed, failures)
        families[family] = score.figures()
        total.add(score)
    result = {
        "overall": total.figures(),
        "families": families,
        "demonstrations": demonstrations(model, prompter, arguments.demo_seeds),
        "demonstration_seeds": arguments.demo_seeds,
        "seed": arguments.seed,
        "dtype": arguments.dtype,
        "torch": torch.__version__,
        "machine": platform.machine(),
        "seconds": round(time.monotonic() - began, 1),
    }
    if arguments.failures:
        for failure in failures:
            print(json.dumps(failure, ensure_ascii=False), file=sys.stderr)
    if arguments.json:
        print(json.dumps(result, indent=2, ensure_ascii=False))
        return
    print(f"{'family':14} {'right':>6} {'tok/fwd':>8} {'steps':>6} {'capped':>7}")
    for family, row in [*families.items(), ("overall", result["overall"])]:
        print(
            f"{family:14} {row['right']:6.1%} {row['tokens_per_forward']:8.2f} {row['effective_steps']:6.2f}"
            f" {row['capped_share']:7.1%}"
        )
    for prompt, right in result["demonstrations"].items():
        print(f"{right}/{arguments.demo_seeds} {prompt!r}")


if __name__ == "__main__":
    main()
