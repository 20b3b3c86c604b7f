"""Tokens sorted by the expert they go to, on the device: no count ever reaches the host.

Every entry (token n, choice j) has the number n * k + j. ``Groups.order`` lists the entries expert by expert; a tile is
up to ``tile`` neighbours of that list that share an expert, and is what one program of a grouped kernel works on.

One launch, a program for each expert. Each reads all ids: a few kilobytes that lie in the L2 cache, far cheaper than a
second launch that would wait for the first. Ranks are running sums, so the order is the same in every run.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.tiles import tokens_in_tile

_CHUNK = 2048  # ids that a program holds at once
_SLOTS = 256  # tiles that it writes at once


@dataclass(frozen=True, slots=True)
class Groups:
    """order: int32 [N * k], entries by expert, in ascending order within one. tiles: int32 [3, most]: the expert, the
    first place in ``order`` and the one after the last; tiles that are not needed have the expert -1. top_k: k.
    """

    order: Tensor
    tiles: Tensor
    tile: int
    top_k: int


def group_by_expert(experts: Tensor, count: int, tile: int | None = None) -> Groups:
    """Sort the entries of ``experts``, int [N, k] of values below ``count``, into tiles of up to ``tile`` rows.

    By default ``tile`` suits the mean number of an expert's entries.
    """
    entries = experts.numel()
    tile = tokens_in_tile("grouped", entries / count) if tile is None else tile
    most = min(entries, count) + entries // tile  # each expert may end in a tile that is not full
    order = torch.empty(entries, dtype=torch.int32, device=experts.device)
    tiles = torch.empty(3, most, dtype=torch.int32, device=experts.device)
    _group[(count,)](
        experts.contiguous(),
        order,
        tiles,
        entries,
        most,
        COUNT=count,
        TILE=tile,
        CHUNK=_CHUNK,
        SLOTS=_SLOTS,
        num_warps=4,
    )
    return Groups(order, tiles, tile, experts.shape[1])


# What hangs on the number of tokens is no constant of the kernel: prompts of every length share what is compiled.
@triton.jit(do_not_specialize=["entries", "most"])
def _group(
    experts_ptr, order_ptr, tiles_ptr, entries, most,
    COUNT: tl.constexpr, TILE: tl.constexpr, CHUNK: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    BINS: tl.constexpr = triton.next_power_of_2(COUNT)
    expert = tl.program_id(0)
    bins = tl.arange(0, BINS)
    chunk = tl.arange(0, CHUNK)

    counts = tl.zeros((BINS,), tl.int32)
    for start in range(0, entries, CHUNK):
        inside = start + chunk < entries
        ids = tl.load(experts_ptr + start + chunk, mask=inside, other=0).to(tl.int32)
        counts += tl.histogram(ids, BINS, mask=inside)
    tiles = (counts + TILE - 1) // TILE
    mine = tl.sum(tl.where(bins == expert, counts, 0))
    first = tl.sum(tl.where(bins < expert, counts, 0))
    first_tile = tl.sum(tl.where(bins < expert, tiles, 0))

    place = first
    for start in range(0, entries, CHUNK):
        entry = start + chunk
        ids = tl.load(experts_ptr + entry, mask=entry < entries, other=-1).to(tl.int32)
        here = ids == expert
        rank = tl.cumsum(here.to(tl.int32), 0)
        tl.store(order_ptr + place + rank - 1, entry, mask=here)
        place += tl.sum(here.to(tl.int32))

    for start in range(0, most, SLOTS):
        slot = start + tl.arange(0, SLOTS)
        used = slot * TILE < mine
        begin = first + slot * TILE
        tl.store(tiles_ptr + first_tile + slot, expert, mask=used)
        tl.store(tiles_ptr + most + first_tile + slot, begin, mask=used)
        tl.store(tiles_ptr + 2 * most + first_tile + slot, tl.minimum(begin + TILE, first + mine), mask=used)
        if expert == 0:
            tl.store(tiles_ptr + slot, -1, mask=(slot >= tl.sum(tiles)) & (slot < most))
