"""A bar chart in plain text."""

from __future__ import annotations

from collections.abc import Sequence

_WIDTH = 40  # cells of the longest bar
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def bars(parts: Sequence[tuple[str, float, str]], unicode: bool) -> list[str]:
    """A line for each of ``parts`` (name, value of 0 or more, what to write behind it), the largest first."""
    ordered = sorted(parts, key=lambda part: -part[1])
    most = max((value for _, value, _ in ordered), default=0.0) or 1.0
    total = sum(value for _, value, _ in ordered) or 1.0
    names = max((len(name) for name, _, _ in ordered), default=0)
    told = max((len(text) for _, _, text in ordered), default=0)
    return [
        f"{name:{names}}  {text:>{told}}  {value / total:4.0%}  {_bar(value / most, unicode)}".rstrip()
        for name, value, text in ordered
    ]


def _bar(share: float, unicode: bool) -> str:
    """``share`` of the full width, to an eighth of a cell where the characters exist."""
    if not unicode:
        return "#" * round(share * _WIDTH)
    eighths = round(share * _WIDTH * 8)
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
