"""What measuring costs: nano's replies with the clock of `dgemma bench` around them, beside the same without it.

    python benchmarks/bench_overhead.py [--pairs 60]

In turns, by the CPU time of this process, which other processes on the machine do not lengthen. Prints JSON, medians of
the pairs: ``figures``, the seconds that a report would tell, by those of the same replies without a clock around them;
``process``, the same of all that measuring does, also between the replies, where no clock runs (reading the peak of
memory); ``chance``, of pairs in which neither is measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

from dgemma_cli import load
from dgemma_cli.bench.local import LocalTarget
from dgemma_cli.bench.prompts import nano
from dgemma_cli.bench.runner import Case, measure
from dgemma_cli.catalog.resolve import resolve
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.probe import Peak
from dgemma_cli.prompting.prompter import Prompter
from dgemma_cli.sampling.presets import DEFAULT


def seconds(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=60, metavar="N")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = load("nano", dtype="float32")
    prompter = Prompter.load(resolve("nano").folder)
    peak = Peak(model.device)
    target = LocalTarget(lambda ids, options: generate(model, ids, options), prompter.encode, lambda: None, peak.read)
    cases = [Case(target.prepare(prompt), DEFAULT, 512) for prompt in nano().prompts]

    def plain() -> None:
        for case in cases:
            for _ in generate(model, case.prompt.ids, case.options):
                pass

    def measured() -> float:
        return sum(measure(target, case.prompt, case.options, time.process_time).seconds for case in cases)

    plain()
    measured()
    figures, process, chance = [], [], []
    for _ in range(arguments.pairs):
        before = seconds(plain)
        begun = time.process_time()
        told = measured()
        whole = time.process_time() - begun
        after = seconds(plain)
        alone = (before + after) / 2
        figures.append(told / alone)
        process.append(whole / alone)
        chance.append(after / before)
    found = {
        "pairs": arguments.pairs,
        "figures": round(statistics.median(figures), 4),
        "process": round(statistics.median(process), 4),
        "chance": round(statistics.median(chance), 4),
    }
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
