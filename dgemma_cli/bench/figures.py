"""From samples to the figures of a row. Every definition stands here; docs/bench.md says them in words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

from dgemma_cli.bench.floor import Device, floor
from dgemma_cli.bench.runner import Case, Sample
from dgemma_cli.bench.statistics import Spread
from dgemma_cli.model.config import ModelConfig

Row: TypeAlias = dict[str, Any]
Round: TypeAlias = Sequence[Sample]

ALL = "all"  # the name of the row over all prompts of a preset


def rows(cases: Sequence[Case], rounds: Sequence[Round], config: ModelConfig, device: Device, text: bool) -> list[Row]:
    """A row for each case, and one over all cases of a preset where it has several.

    rounds: the samples of all cases, round after round. text: whether what was written means anything: with random
    weights it does not, and what counts tokens is None.
    """
    found = []
    for preset in dict.fromkeys(case.preset for case in cases):
        chosen = [index for index, case in enumerate(cases) if case.preset == preset]
        for index in chosen:
            found.append(_row(cases[index], [[samples[index]] for samples in rounds], config, device, text))
        if len(chosen) > 1:
            pooled = [[samples[index] for index in chosen] for samples in rounds]
            own = {"prompt": ALL, "kind": ALL, "context": None, "samples": None}  # those stand in the rows above
            found.append(_row(cases[chosen[0]], pooled, config, device, text) | own)
    return found


def _row(case: Case, rounds: Sequence[Round], config: ModelConfig, device: Device, text: bool) -> Row:
    first = [sample.statistics for sample in rounds[0]]
    samples = [sample for each in rounds for sample in each]
    blocks = [block for sample in samples for block in sample.blocks]
    peaks = [sample.peak for sample in samples if sample.peak is not None]
    least = floor(config, device, samples)
    per_step = spread(rounds, step_ms)
    return {
        "prompt": case.prompt.name,
        "kind": case.prompt.kind,
        "context": case.prompt.context,
        "preset": case.preset,
        "fixed_steps": case.fixed_steps,
        "max_tokens": case.max_tokens,
        "prompt_tokens": sum(count.prompt_tokens for count in first),
        "tokens": sum(count.tokens for count in first) if text else None,
        "blocks": sum(count.blocks for count in first),
        "steps": sum(count.steps for count in first),
        "ms_per_step": per_step,
        "prefill_tokens_per_second": spread(rounds, _prefill_rate),
        "kept_tokens_per_second": spread(rounds, kept_rate) if text else None,
        "first_draft_ms": spread(rounds, _mean_ms("first_draft_seconds")),
        "first_block_ms": spread(rounds, _mean_ms("first_block_seconds")),
        "steps_per_block": {
            "mean": sum(block.steps for block in blocks) / len(blocks),
            "min": min(block.steps for block in blocks),
            "max": max(block.steps for block in blocks),
            "at_cap": sum(not block.converged for block in blocks) / len(blocks),
        },
        "tokens_per_forward": tokens_per_forward(samples) if text else None,
        "effective_steps": effective_steps(samples) if text else None,
        "peak_memory_bytes": max(peaks) if peaks else None,
        "floor": {
            "kind": least.kind,
            "work": least.work,
            "ms": least.seconds * 1000,
            "reached": least.seconds * 1000 / per_step["mean"] if per_step["mean"] else None,
        },
        "samples": [_raw(sample) for sample in samples],
    }


def spread(rounds: Sequence[Round], figure: Callable[[Round], float]) -> dict[str, Any]:
    """A figure of each round, as mean, standard deviation and count."""
    return asdict(Spread.of([figure(samples) for samples in rounds]))


def step_ms(samples: Round) -> float:
    """Milliseconds of denoising, by the steps taken."""
    steps = sum(block.steps for sample in samples for block in sample.blocks)
    return 1000 * sum(block.seconds for sample in samples for block in sample.blocks) / steps


def _prefill_rate(samples: Round) -> float:
    return _ratio(
        sum(sample.statistics.prompt_tokens for sample in samples), sum(sample.prefill_seconds for sample in samples)
    )


def kept_rate(samples: Round) -> float:
    """Kept tokens a second of whole replies, prompts and commits included."""
    return _ratio(sum(sample.statistics.tokens for sample in samples), sum(sample.seconds for sample in samples))


def _mean_ms(name: str) -> Callable[[Round], float]:
    return lambda samples: 1000 * sum(getattr(sample, name) for sample in samples) / len(samples)


def _ratio(amount: float, seconds: float) -> float:
    return amount / seconds if seconds > 0 else 0.0


def tokens_per_forward(samples: Sequence[Sample]) -> float:
    """Valid tokens over all replies, by their denoising steps and the passes that encode a finished block."""
    counts = [sample.statistics for sample in samples]
    return sum(count.valid_tokens for count in counts) / sum(count.steps + count.blocks - 1 for count in counts)


def effective_steps(samples: Sequence[Sample]) -> float | None:
    """Steps of a block, weighted by its valid tokens; None if there are none."""
    counts = [sample.statistics for sample in samples]
    valid = sum(count.valid_tokens for count in counts)
    return sum(count.effective_steps * count.valid_tokens for count in counts) / valid if valid else None


def _raw(sample: Sample) -> dict[str, Any]:
    counted = sample.statistics
    return {
        "seed": counted.seed,
        "prompt_tokens": counted.prompt_tokens,
        "tokens": counted.tokens,
        "valid_tokens": counted.valid_tokens,
        "prefill_seconds": sample.prefill_seconds,
        "first_draft_seconds": sample.first_draft_seconds,
        "first_block_seconds": sample.first_block_seconds,
        "seconds": sample.seconds,
        "peak_memory_bytes": sample.peak,
        "text": digest(sample.ids),
        "blocks": [asdict(block) for block in sample.blocks],
    }


def digest(ids: Sequence[int]) -> str:
    """Tells whether two replies are the same, without showing them."""
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()[:16]


def cells(row: Row) -> Iterator[tuple[str, Any]]:
    """A row flattened for a table of values: nested figures under dotted names, samples left out."""
    for key, value in row.items():
        if key == "samples":
            continue
        if isinstance(value, dict):
            yield from ((f"{key}.{name}", part) for name, part in value.items())
        else:
            yield key, value
