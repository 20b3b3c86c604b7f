"""Sampler policies on nano's held-out jobs: what each saves in passes and what it costs in right answers.

    python benchmarks/sampler.py                                       the presets, 24 prompts of each family
    python benchmarks/sampler.py --candidates --count 12 --seed 555    and what was tried and not taken
    python benchmarks/sampler.py --capped                              what to do where the cap is hit
    python benchmarks/sampler.py --best-of                             what several canvases at once cost
    python benchmarks/sampler.py --open                                tales and poems, for weights that know them
    python benchmarks/sampler.py --json FILE --svg FILE                the figures, and the frontier as a picture

Every policy answers the same prompts from the same seeds. ``exact``: right to the letter (tales and poems: found sound
by a program), with its 95 % interval (Wilson), and how many answers became right and wrong beside the reference.
``passes``: all denoising steps and commit passes, beside those of the reference; ``short``: the same over the answers
under a quarter of a canvas. Tokens per forward and effective steps are the technical report's. ``seeing ahead`` is the
reference stopped, by somebody who knows the outcome, at the first draft that says what it will end with: no rule of
stopping saves more on its canvases.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import torch
from frontier import Point, draw
from nano_data import distinct
from nano_jobs import FAMILIES
from nano_sample import Sample
from nano_tales import OPEN
from sampler_policies import CANDIDATES, CAPPED, POLICIES, Policy

from dgemma_cli.bench.statistics import interval
from dgemma_cli.engine.events import BlockCommitted, Denoised, Finished
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.model.model import Model
from dgemma_cli.prompting.prompter import Message, Prompter
from dgemma_cli.sampling.presets import PRESETS
from dgemma_cli.weights.loader import load_model

NANO = Path(__file__).parent.parent / "dgemma_cli" / "nano"
REFERENCE = "reference"
AHEAD = "seeing ahead"


@dataclass(slots=True)
class Tally:
    """Over all prompts of one policy. passes: of each answer; short: whether it is under a quarter of a canvas;
    first_said: passes up to the first draft of each block that says what the block ends with.
    """

    right: list[bool] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    first_said: list[int] = field(default_factory=list)
    short: list[bool] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)  # of each canvas
    capped: int = 0
    valid: int = 0
    weighted: float = 0.0


def ask(model: Model, prompter: Prompter, sample: Sample, seed: int, policy: Policy, tally: Tally) -> None:
    ids: list[int] = []
    before, first_said = tally.valid, 0
    drafts: list[tuple[int, ...]] = []
    prompt = prompter.encode([Message("user", sample.prompt)])
    options = Options(seed=seed, preset=policy.preset, **policy.options)
    for event in generate(model, prompt, options, denoiser=policy.denoiser):
        if isinstance(event, Denoised):
            drafts.append(event.canvas)
        elif isinstance(event, BlockCommitted):
            ids.extend(event.ids)
            tally.steps.append(event.steps)
            tally.capped += not event.converged
            ends = model.defaults.eos_ids
            said = [_says(draft, event.ids, ends) for draft in drafts]
            first_said += said.index(True) + 1 if True in said else event.steps
            drafts = []
        elif isinstance(event, Finished):
            found = event.statistics
            tally.valid += found.valid_tokens
            tally.passes.append(found.steps + found.blocks - 1)
            tally.first_said.append(first_said + found.blocks - 1)
            tally.weighted += found.effective_steps * found.valid_tokens
    tally.right.append(sample.check(prompter.reply(ids).answer))
    tally.short.append(tally.valid - before < model.config.canvas_length / 4)


def _says(draft: tuple[int, ...], ids: tuple[int, ...], ends: frozenset[int]) -> bool:
    """Whether a draft, if it were committed, would give these ids."""
    behind = draft[len(ids) : len(ids) + 1]
    return draft[: len(ids)] == ids and (not behind or behind[0] in ends)


def measure(name: str, folder: Path, count: int, seed: int, families: Iterable[str] = FAMILIES) -> Tally:
    """Some families under one policy; runs in a process of its own, on one thread."""
    torch.set_num_threads(1)
    policy = (POLICIES | CANDIDATES | CAPPED)[name]
    model = load_model(folder, "cpu", "float32")
    prompter = Prompter.load(folder)
    tally = Tally()
    for family in families:
        for number, sample in enumerate(distinct(family, "heldout", count, seed)):
            ask(model, prompter, sample, seed + number, policy, tally)
    return tally


def row(name: str, tally: Tally, reference: Tally, passes: list[int]) -> dict[str, Any]:
    low, high = interval(sum(tally.right), len(tally.right))
    both = list(zip(reference.right, tally.right, strict=True))

    def saved(short_only: bool) -> float | None:
        chosen = [i for i, short in enumerate(reference.short) if short or not short_only]
        return 1 - sum(passes[i] for i in chosen) / sum(reference.passes[i] for i in chosen) if chosen else None

    ordered = sorted(tally.steps)
    return {
        "policy": name,
        "prompts": len(tally.right),
        "exact": sum(tally.right) / len(tally.right),
        "exact_low": low,
        "exact_high": high,
        "became_right": sum(now and not then for then, now in both),
        "became_wrong": sum(then and not now for then, now in both),
        "passes": sum(passes),
        "passes_saved": saved(False),
        "passes_saved_short": saved(True),
        "steps_mean": statistics.mean(tally.steps),
        "steps_p50": ordered[len(ordered) // 2],
        "steps_p90": ordered[int(len(ordered) * 0.9)],
        "capped_share": tally.capped / len(tally.steps),
        "tokens_per_forward": tally.valid / sum(passes),
        "effective_steps": tally.weighted / tally.valid,
    }


def rows(tallies: dict[str, Tally]) -> list[dict[str, Any]]:
    """A row for each policy, and the reference seen ahead."""
    reference = tallies[REFERENCE]
    found = [row(name, tally, reference, tally.passes) for name, tally in tallies.items()]
    ahead = row(AHEAD, reference, reference, reference.first_said)
    for key in ("steps_mean", "steps_p50", "steps_p90", "capped_share", "effective_steps"):
        ahead[key] = None  # of canvases, which it does not follow
    return [*found, ahead]


def table(found: list[dict[str, Any]]) -> str:
    """The rows as markdown."""
    columns = (
        "policy",
        "exact (95 %)",
        "became right / wrong",
        "passes saved",
        "short answers",
        "steps mean / p50 / p90",
        "at the cap",
        "tok/fwd",
        "eff. steps",
    )
    lines = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for each in found:
        known = each["steps_mean"] is not None
        cells = (
            each["policy"],
            f"{each['exact']:.1%} ({each['exact_low']:.1%} to {each['exact_high']:.1%})",
            f"{each['became_right']} / {each['became_wrong']}",
            f"{each['passes_saved']:.1%}",
            "" if each["passes_saved_short"] is None else f"{each['passes_saved_short']:.1%}",
            f"{each['steps_mean']:.2f} / {each['steps_p50']} / {each['steps_p90']}" if known else "",
            f"{each['capped_share']:.1%}" if known else "",
            f"{each['tokens_per_forward']:.2f}",
            f"{each['effective_steps']:.2f}" if known else "",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(found: list[dict[str, Any]]) -> str:
    points = [
        Point(
            each["policy"],
            each["passes_saved"],
            each["exact"],
            each["exact_low"],
            each["exact_high"],
            each["policy"] in PRESETS,
        )
        for each in found
        if each["policy"] != AHEAD
    ]
    reference = found[0]
    prompts, passes = reference["prompts"], reference["passes"]
    canvases = round((passes + prompts) / (reference["steps_mean"] + 1))  # passes = steps + canvases - prompts
    return draw(points, prompts, 1 - (2 * canvases - prompts) / passes)


def best_of(folder: Path, rounds: int) -> None:
    """What a pass over N canvases costs beside a pass over one: CPU time, in turns in one process."""
    torch.set_num_threads(1)
    model = load_model(folder, "cpu", "float32")
    cache = model.new_cache()
    vocab, length = model.config.vocab_size, model.config.canvas_length
    generator = torch.Generator().manual_seed(0)
    model.encode(torch.randint(vocab, (64,), generator=generator), cache)
    taken: dict[int, list[float]] = {1: [], 2: [], 4: []}
    for number in range(rounds + 2):
        for count, times in taken.items():
            canvases = torch.randint(vocab, (count, length), generator=generator)
            softs = torch.randn(count, length, model.config.hidden_size, generator=generator)
            begun = time.process_time()
            model.denoise(canvases, cache, softs)
            if number >= 2:  # the first are slower
                times.append(time.process_time() - begun)
    alone = statistics.median(taken[1])
    for count, times in taken.items():
        each = statistics.median(times)
        print(f"{count} canvases: {each * 1000:.1f} ms of CPU a pass, {each / alone:.2f} times one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=NANO)
    parser.add_argument("--count", type=int, default=24, help="held-out prompts of each family")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--candidates", action="store_true", help="also the policies that were not taken")
    parser.add_argument("--open", action="store_true", help="tales and poems instead of the jobs with one answer")
    parser.add_argument("--capped", action="store_true", help="caps that are hit, instead of the presets")
    parser.add_argument("--best-of", action="store_true", help="the cost of canvases side by side, and nothing else")
    parser.add_argument("--only", metavar="TEXT", help="only the reference and policies with TEXT in their names")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    arguments = parser.parse_args()
    if arguments.best_of:
        best_of(arguments.model, 20)
        return
    policies = POLICIES | (CANDIDATES if arguments.candidates else {})
    if arguments.capped:
        policies = {REFERENCE: POLICIES[REFERENCE]} | CAPPED
    if arguments.only:
        policies = {name: one for name, one in policies.items() if name == REFERENCE or arguments.only in name}
    tallies = {}
    families = tuple(OPEN if arguments.open else FAMILIES)
    run = partial(measure, folder=arguments.model, count=arguments.count, seed=arguments.seed, families=families)
    with ProcessPoolExecutor(arguments.processes) as pool:
        waiting = {name: pool.submit(run, name) for name in policies}
        for name, one in waiting.items():
            tallies[name] = one.result()
            print(
                table([row(name, tallies[name], tallies[REFERENCE], tallies[name].passes)]).splitlines()[-1], flush=True
            )
    found = rows(tallies)
    print(table(found))
    if arguments.json:
        settings = {name: asdict(preset) for name, preset in PRESETS.items()}
        document = {"rows": found, "presets": settings, "seed": arguments.seed, "torch": torch.__version__}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    if arguments.svg:
        arguments.svg.write_text(picture(found))


if __name__ == "__main__":
    main()
