"""Student's quantiles against the printed tables; differences told and not told."""

from __future__ import annotations

import random

import pytest

from dgemma_cli.bench.statistics import Spread, change, interval, margin, student


@pytest.mark.parametrize(
    ("freedom", "share", "expected"),
    [
        (1, 0.999, 636.62),
        (2, 0.999, 31.599),
        (4, 0.999, 8.610),
        (8, 0.999, 5.041),
        (8, 0.95, 2.306),
        (30, 0.999, 3.646),
        (200, 0.95, 1.972),
    ],
)
def test_student_is_the_tables(freedom: int, share: float, expected: float) -> None:
    assert student(share, freedom) == pytest.approx(expected, rel=2e-3)


def test_spread() -> None:
    assert Spread.of([1.0, 2.0, 3.0]) == Spread(2.0, 1.0, 3)
    assert Spread.of([4.0]) == Spread(4.0, 0.0, 1)
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


def test_margin_of_equal_spreads_is_students() -> None:
    one = Spread(10.0, 0.5, 5)
    assert margin(one, one) == pytest.approx(5.041 * 0.5 * (2 / 5) ** 0.5, rel=1e-2)
    assert margin(Spread(1, 0, 5), Spread(2, 0, 5)) == 0


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (Spread(10, 0.1, 5), Spread(11.5, 0.1, 5), "higher"),
        (Spread(10, 0.1, 5), Spread(8.5, 0.1, 5), "lower"),
        (Spread(10, 0.0, 5), Spread(10.2, 0.0, 5), "within noise"),  # less than machines drift
        (Spread(10, 2.0, 5), Spread(11.5, 2.0, 5), "within noise"),
        (Spread(10, 0.0, 1), Spread(11.5, 0.1, 5), "noise unknown"),
    ],
)
def test_change(old: Spread, new: Spread, expected: str) -> None:
    assert change(old, new) == expected


@pytest.mark.parametrize("count", [3, 5, 20])
def test_two_runs_of_the_same_thing_agree(count: int) -> None:
    """Noise of 4 %, more than the drift that is always allowed: hardly ever taken for a change."""
    draw = random.Random(count)

    def run() -> Spread:
        return Spread.of([draw.gauss(10, 0.4) for _ in range(count)])

    told = sum(change(run(), run()) != "within noise" for _ in range(4000))
    assert told <= 12  # 4 are expected of a test at one in a thousand


def test_interval() -> None:
    low, high = interval(92, 100)
    assert low == pytest.approx(0.850, abs=2e-3)
    assert high == pytest.approx(0.959, abs=2e-3)
