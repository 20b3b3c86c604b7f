"""Speed against quality as an SVG: passes saved to the right, right answers upwards. Readable in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 24, 24, 56
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #57606a }
  .name { font-weight: 600; fill: #24292f }
  .grid { stroke: #d0d7de; stroke-width: 1 }
  .bar { stroke: #0969da; stroke-width: 1.5; opacity: .55 }
  .preset { fill: #0969da }
  .edge { stroke: #8c959f; stroke-width: 1; stroke-dasharray: 2 3 }
  .tried { fill: #8c959f; opacity: .8 }
  .line { stroke: #0969da; stroke-width: 1.5; fill: none; stroke-dasharray: 4 4; opacity: .6 }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 } .name { fill: #e6edf3 } .grid { stroke: #30363d }
    .bar, .line { stroke: #58a6ff } .preset { fill: #58a6ff } .tried { fill: #6e7681 }
  }
"""


@dataclass(frozen=True, slots=True)
class Point:
    """A policy. saved, exact, low, high: shares; low and high: the interval of exact. preset: it is shipped."""

    name: str
    saved: float
    exact: float
    low: float
    high: float
    preset: bool


def draw(points: Sequence[Point], prompts: int, most_saved: float) -> str:
    """The picture. What was tried is a grey dot; the presets are named, with their intervals. most_saved: the share
    that one pass a canvas would save, which nothing can pass.
    """
    shipped = sorted((point for point in points if point.preset), key=lambda point: point.saved)
    bottom = min(min(point.low for point in shipped), min(point.exact for point in points))
    low, high = int(bottom * 50) / 50, 1.0
    grid = 1 if high - low <= 0.1 else 5
    most = max(0.6, -(-max(point.saved for point in points) * 10 // 1) / 10)
    least = min(0.0, (min(point.saved for point in points) * 10 // 1) / 10)

    def x(saved: float) -> float:
        return round(_LEFT + (saved - least) / (most - least) * (_WIDTH - _LEFT - _RIGHT), 1)

    def y(exact: float) -> float:
        return round(_TOP + (high - exact) / (high - low) * (_HEIGHT - _TOP - _BOTTOM), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>Sampler presets on nano: right answers against passes saved, {prompts} held-out prompts</title>",
        f"<style>{_STYLE}</style>",
    ]
    for percent in range(round(low * 100), 101, grid):
        height = y(percent / 100)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{height}" x2="{_WIDTH - _RIGHT}" y2="{height}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{height + 4}" text-anchor="end">{percent} %</text>')
    for step in range(round(least * 10), round(most * 10) + 1):
        parts.append(f'<text x="{x(step / 10)}" y="{_HEIGHT - _BOTTOM + 20}" text-anchor="middle">{step * 10} %</text>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{_HEIGHT - 12}" text-anchor="middle">passes saved against the reference sampler; '
        f"upwards: right answers of {prompts}, with 95 % intervals</text>"
    )
    edge = x(most_saved)
    parts.append(f'<line class="edge" x1="{edge}" y1="{_TOP}" x2="{edge}" y2="{_HEIGHT - _BOTTOM}"/>')
    parts.append(f'<text x="{edge + 8}" y="{_HEIGHT - _BOTTOM - 10}">one pass</text>')
    for point in points:
        if not point.preset:
            parts.append(
                f'<circle class="tried" cx="{x(point.saved)}" cy="{y(point.exact)}" r="3">'
                f"<title>{escape(point.name)}</title></circle>"
            )
    path = " ".join(f"{x(point.saved)},{y(point.exact)}" for point in shipped)
    parts.append(f'<polyline class="line" points="{path}"/>')
    for number, point in enumerate(shipped):
        left, up = x(point.saved), y(point.exact)
        parts.append(f'<line class="bar" x1="{left}" y1="{y(point.low)}" x2="{left}" y2="{y(point.high)}"/>')
        parts.append(f'<circle class="preset" cx="{left}" cy="{up}" r="5"/>')
        # In turns above and below, since two may lie together.
        anchor, shift = ("end", -9) if left > _WIDTH / 2 else ("start", 9)
        height = up + (20 if number % 2 else -9)
        parts.append(f'<text class="name" x="{left + shift}" y="{height}" text-anchor="{anchor}">{point.name}</text>')
    return "\n".join([*parts, "</svg>", ""])
