"""Sizes and times, as people read and write them."""

from __future__ import annotations

import pytest

from dgemma_cli.errors import UsageError
from dgemma_cli.units import duration, seconds, size


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (999_949, "999.9 kB"),
        (999_950, "1.0 MB"),  # not "1000.0 kB"
        (18_800_000_000, "18.8 GB"),
        (2_000_000_000_000, "2.0 TB"),
    ],
)
def test_sizes(count: int, told: str) -> None:
    assert size(count) == told


def test_times() -> None:
    assert [seconds(text, "keep") for text in ("90s", "1.5m", "2h", "1d")] == [90, 90, 7200, 86400]
    assert [duration(span) for span in (5, 540, 7200, 172_800)] == ["5 s", "9 min", "2 h", "2 d"]
    with pytest.raises(UsageError, match="keep must be a time like 90s, 10m or 2h, not 'soon'"):
        seconds("soon", "keep")
