"""Right answers beside speed: every task once under each preset."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from dgemma_cli.bench.figures import effective_steps, kept_rate, step_ms, tokens_per_forward
from dgemma_cli.bench.prompts import Prompt
from dgemma_cli.bench.runner import SEED, Clock, Sample, Target, measure
from dgemma_cli.bench.statistics import interval
from dgemma_cli.bench.tasks import Task
from dgemma_cli.engine.options import Options
from dgemma_cli.prompting.conversation import Message


def judge(
    target: Target,
    tasks: Sequence[Task],
    preset: str,
    max_tokens: int,
    read: Callable[[Sequence[int]], str],
    clock: Clock = time.perf_counter,
) -> dict[str, Any]:
    """How many of ``tasks`` come out right under ``preset``, each asked once with a seed of its own, the same for every
    preset. read: the answer in a reply's ids.
    """
    samples: list[Sample] = []
    right: list[bool] = []
    for number, task in enumerate(tasks):
        options = Options(max_tokens=max_tokens, seed=SEED + number, preset=preset, drafts=False)
        prompt = target.prepare(Prompt(str(number), task.family, (Message("user", task.prompt),)))
        sample = measure(target, prompt, options, clock)
        samples.append(sample)
        right.append(task.check(read(sample.ids)))
    low, high = interval(sum(right), len(right))
    families: dict[str, dict[str, int]] = {}
    for task, is_right in zip(tasks, right, strict=True):
        counts = families.setdefault(task.family, {"tasks": 0, "right": 0})
        counts["tasks"] += 1
        counts["right"] += is_right
    return {
        "preset": preset,
        "tasks": len(tasks),
        "right": sum(right),
        "exact": sum(right) / len(right),
        "exact_low": low,
        "exact_high": high,
        "ms_per_step": step_ms(samples),
        "kept_tokens_per_second": kept_rate(samples),
        "steps": sum(sample.statistics.steps for sample in samples),
        "tokens_per_forward": tokens_per_forward(samples),
        "effective_steps": effective_steps(samples),
        "families": families,
    }
