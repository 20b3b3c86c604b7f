"""Times of work on a device, by marks in its queue: what the host does beside it costs nothing."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from dgemma_cli.engine.probe import wait

Work = Callable[[], object]


def milliseconds(device: torch.device, parts: Sequence[Work], repetitions: int) -> list[float]:
    """Median time of each part. They run one after the other, again and again, so that what slows the device down for
    a while slows all of them. A first round does not count.
    """
    for part in parts:
        part()
    wait(device)
    rounds = [_marks(device, parts) for _ in range(repetitions)]
    wait(device)
    times = [[_between(first, second) for first, second in itertools.pairwise(marks)] for marks in rounds]
    return [statistics.median(part) for part in zip(*times, strict=True)]


def _marks(device: torch.device, parts: Sequence[Work]) -> list[Any]:
    marks = [_mark(device)]
    for part in parts:
        part()
        marks.append(_mark(device))
    return marks


def _mark(device: torch.device) -> Any:
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record(torch.cuda.current_stream(device))
    return event


def _between(first: Any, second: Any) -> float:
    return float((second - first) * 1000 if isinstance(first, float) else first.elapsed_time(second))
