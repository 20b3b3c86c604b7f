"""Sizes and times as people read and write them."""

from __future__ import annotations

import re

from dgemma_cli.errors import UsageError


def size(count: int) -> str:
    """Bytes in decimal units, as disks and the Hub count: "18.8 GB"."""
    if count < 1000:
        return f"{count} B"
    value = float(count)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if value < 999.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1000:.1f} TB"


def seconds(text: str, name: str) -> float:
    """A time such as "90s", "10m", "2h" or "1d", in seconds. Raises UsageError that calls it ``name``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if found is None:
        raise UsageError(f"{name} must be a time like 90s, 10m or 2h, not {text!r}.")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]]


def duration(span: float) -> str:
    """Seconds as people say them, roughly: "9 min"."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if span >= length:
            return f"{span / length:.0f} {unit}"
    return f"{span:.0f} s"
