"""How a kernel's work is cut where that was measured: by the use that is made of it, on each GPU of this process.

A use is a name that says all that the time hangs on: the kernel, the weights' format, the sizes. So models that share a
GPU share cuts only where they launch the same. A cut is the numbers of a tile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch

Cut = tuple[int, ...]

_settled: dict[torch.device, dict[str, Cut]] = {}
_tried: dict[str, Cut] = {}


def cut_of(use: str, device: torch.device) -> Cut | None:
    """How ``use`` is cut on ``device``; None: as it is by default."""
    return _tried.get(use) or _settled.get(device, {}).get(use)


def settle(device: torch.device, cuts: Mapping[str, Cut]) -> None:
    """Cut so from now on. What was settled before stays: it may have been recorded, and was compared with torch."""
    _settled[device] = {**cuts, **_settled.get(device, {})}


def unsettle(device: torch.device, uses: Iterable[str]) -> None:
    """Cut these as it is done by default."""
    for use in uses:
        _settled.get(device, {}).pop(use, None)


@contextmanager
def trying(use: str, cut: Cut) -> Iterator[None]:
    """Cut ``use`` another way inside, on every GPU: to measure, or to compile."""
    before = _tried.copy()
    _tried[use] = cut
    try:
        yield
    finally:
        _tried.clear()
        _tried.update(before)
