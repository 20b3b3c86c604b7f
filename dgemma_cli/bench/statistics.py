"""Means with their noise, and what may be said of a difference between two of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

# A difference is told when chance alone would bring it in one case of a thousand: a report compares dozens of figures.
CERTAINTY = 0.999
# Two runs of one program differ by more than their repetitions do (where memory lies, how warm a machine is), which no
# repetition within a run shows: less than this share is never called a change.
DRIFT = 0.03

Change: TypeAlias = Literal["higher", "lower", "within noise", "noise unknown"]


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation (0 for a single value) of ``count`` values."""

    mean: float
    sd: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Raises ValueError if there is nothing to average."""
        if not values:
            raise ValueError("no values")
        return cls(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0, len(values))


def change(old: Spread, new: Spread) -> Change:
    """Whether ``new`` differs from ``old`` by more than noise: Welch's test at CERTAINTY, and by DRIFT at the least."""
    if old.count < 2 or new.count < 2:
        return "noise unknown"
    difference = new.mean - old.mean
    if abs(difference) <= max(DRIFT * abs(old.mean), margin(old, new)):
        return "within noise"
    return "higher" if difference > 0 else "lower"


def margin(old: Spread, new: Spread) -> float:
    """How far two means of the same thing may lie apart by chance (at CERTAINTY; both of two values or more)."""
    parts = [spread.sd**2 / spread.count for spread in (old, new)]
    variance = sum(parts)
    if variance == 0:
        return 0.0
    # Welch and Satterthwaite's degrees of freedom, rounded down to the careful side.
    freedom = variance**2 / sum(part**2 / (spread.count - 1) for part, spread in zip(parts, (old, new), strict=True))
    return student(CERTAINTY, max(1, int(freedom))) * math.sqrt(variance)


@lru_cache
def student(share: float, freedom: int) -> float:
    """What the absolute value of Student's t stays under in ``share`` of the draws.

    t = sqrt(freedom) * tan(angle), where the angle has a density proportional to cos(angle) ** (freedom - 1).
    """
    pieces = 20_000
    width = math.pi / 2 / pieces
    density = [math.cos((piece + 0.5) * width) ** (freedom - 1) for piece in range(pieces)]
    wanted = share * math.fsum(density)
    passed = 0.0
    for piece, value in enumerate(density):
        if passed + value >= wanted:
            return math.sqrt(freedom) * math.tan((piece + (wanted - passed) / value) * width)
        passed += value
    return math.inf


def interval(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of the share ``right`` of ``count``."""
    z, share = 1.96, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return middle - half, middle + half
