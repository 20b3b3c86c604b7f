"""Attention over a cache whose length only the device knows: a canvas that sees all of it, and text that looks back.

Keys and values lie in buffers [kv_heads, capacity, d], of which the kernels read a stretch given by numbers in device
memory, so that one captured graph serves every length. The query heads of a group share their keys: they are folded
into the rows of a tile. The keys are cut into ``splits`` parts, counted from the first visible one, that run side by
side and are merged in a fixed order: the bits hang neither on the capacity nor on where in a buffer the keys lie.
There is no 1/sqrt(d). The reference is ``model.cache.attend``.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.cuts import Cut, cut_of
from dgemma_cli.kernels.launch import architecture, require
from dgemma_cli.kernels.planes import planar, rows_in, to_planes


class Tiles(NamedTuple):
    """How a launch is cut: query rows and keys a tile, warps a program, loads in flight."""

    rows: int
    keys: int
    warps: int
    stages: int


def attend_canvas(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor,
    start: Tensor,
    planes: int = 1,
    out: Tensor | None = None,
    tiles: Tiles | None = None,
    splits: int | None = None,
) -> Tensor:
    """Every query sees the positions first .. start + N - 1, of which the canvas itself is the last N.

    q: [N, heads, d]; k, v: [kv_heads, capacity, d] with the canvas written at ``start``; first, start: int32 [1] on the
    device. d: a power of two from 16 to 512. Returns [N, heads * d], in ``planes``.
    """
    if tiles is None and splits is None:
        measured = cut_of(canvas_use(q.shape[0], q.shape[1], k.shape[0], q.shape[2], planes), q.device)
        if measured is not None:
            *sizes, splits = measured
            tiles = Tiles(*sizes)
    return _attend(q, k, v, first, start, None, planes, out, tiles, splits)


def attend_causal(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    start: Tensor,
    window: int | None,
    planes: int = 1,
    out: Tensor | None = None,
    tiles: Tiles | None = None,
    splits: int | None = None,
) -> Tensor:
    """Query i sees the positions up to start + i, and of those the last ``window``, if there is one.

    Otherwise as ``attend_canvas``.
    """
    return _attend(q, k, v, None, start, window or 0, planes, out, tiles, splits)


def tiles_for(dim: int, card: int | None) -> Tiles:
    """The tiles for heads of ``dim`` on a card of compute capability ``card`` (90 for 9.0; None: the interpreter).

    Chosen so that the loops keep to the registers and shared memory suffices: 99 KB a block, or 163 and more. But for
    9.0 and 10.0, a tile's warps stand side by side along the keys, 8 each: with fewer keys they would compute the same
    scores several times.
    """
    if dim <= 128 or card is None:
        return Tiles(64, 64, 4, 2)
    if card in _OF_256:
        return _OF_256[card] if dim == 256 else Tiles(64, 32, 8, 2)
    if dim == 512:
        return Tiles(32, 32, 4, 2)
    return Tiles(64, 64, 8, 2) if card == 80 else Tiles(64, 32, 4, 2)


# The tiles for heads of 256 where several warps share an instruction.
_OF_256 = {90: Tiles(128, 64, 8, 2), 100: Tiles(128, 32, 8, 2), 103: Tiles(128, 32, 8, 2)}
# What may be faster, for cards whose blocks have 163 KB of shared memory and more, and for those with 99.
_OTHERS = {
    (256, True): ((64, 32, 4, 2), (64, 64, 4, 2), (64, 64, 8, 2), (128, 32, 8, 2), (128, 64, 8, 2)),
    (512, True): ((32, 32, 4, 2), (32, 64, 8, 1), (64, 32, 8, 2), (64, 64, 8, 1), (64, 32, 8, 1)),
    (256, False): ((64, 32, 4, 1), (32, 32, 4, 2), (64, 64, 8, 1), (128, 32, 8, 1)),
    (512, False): ((32, 16, 4, 2), (32, 16, 4, 1), (16, 32, 4, 2), (32, 32, 8, 1)),
}
_ROOMY = (80, 90, 100, 103)
SPLITS = (1, 2, 4, 8)  # ``_merge`` is compiled for each


def canvas_use(tokens: int, heads: int, kv_heads: int, dim: int, planes: int) -> str:
    """The name of a canvas's attention (``cuts``); its cut is that of ``Tiles``, and how many parts of the keys."""
    return f"attention {heads}/{kv_heads} heads of {dim} by {tokens} in {planes}"


def usual_cut(tokens: int, heads: int, kv_heads: int, dim: int, device: torch.device, card: int | None) -> Cut:
    """How a canvas's attention is cut where that was not measured."""
    tiles = tiles_for(dim, card)
    programs = triton.cdiv(tokens, tiles.rows // (heads // kv_heads)) * kv_heads
    return (*tiles, _splits(programs, device))


def other_tiles(dim: int, card: int | None) -> list[Tiles]:
    """Tiles that may be faster for heads of ``dim`` on a card."""
    if card is None:
        return [Tiles(32, 32, 4, 1)]
    usual = tiles_for(dim, card)
    return [Tiles(*other) for other in _OTHERS.get((dim, card in _ROOMY), ()) if other != usual]


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    first: Tensor | None,
    start: Tensor,
    window: int | None,
    planes: int,
    out: Tensor | None,
    tiles: Tiles | None,
    splits: int | None,
) -> Tensor:
    """Causal if ``window`` is an int, 0 for no window; ``first`` is for the other kind."""
    tokens, heads, dim = q.shape
    kv_heads, capacity, _ = k.shape
    out = rows_in(planes, tokens, heads * dim, q, out)
    require(q, k, v, first, start, out)
    if dim & (dim - 1) or not 16 <= dim <= 512 or heads % kv_heads:
        raise ValueError(f"no attention for {heads} and {kv_heads} heads of {dim}")
    group = heads // kv_heads
    tiles = tiles or tiles_for(dim, architecture(q))
    row_tiles = triton.cdiv(tokens, tiles.rows // group)
    splits = splits or _splits(row_tiles * kv_heads, q.device)
    if splits > 1:
        partial = torch.empty(splits, tokens, heads, dim, dtype=torch.float32, device=q.device)
        mass = torch.empty(splits, tokens, heads, dtype=torch.float32, device=q.device)
    else:
        partial = mass = q  # never touched then
    # Addresses in planes are too many for a tile's registers. Where there are no parts to be merged, another launch
    # lays the rows out.
    rows = out if planes == 1 or splits > 1 else q.new_empty(tokens, heads * dim)
    _attend_tile[(row_tiles, kv_heads, splits)](
        q, k, v, start if first is None else first, start, rows, partial, mass, tokens, capacity,
        heads, group, dim, window is not None, window or 0, splits > 1, tiles.rows, tiles.keys,
        num_warps=tiles.warps, num_stages=tiles.stages,
    )  # fmt: skip
    if splits > 1:
        at_once = max(1, 2048 // dim)
        _merge[(triton.cdiv(tokens * heads, at_once),)](
            partial, mass, out, tokens * heads, heads, dim, splits, planes, at_once, num_warps=4
        )
    elif planes > 1:
        to_planes(rows, planes, out)
    return out


@cache
def _processors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _splits(programs: int, device: torch.device) -> int:
    """As many parts of the keys as it takes to give every multiprocessor about one program, of ``SPLITS``."""
    wanted = min(SPLITS[-1], _processors(device) // programs)
    return 1 << max(0, wanted.bit_length() - 1)


@triton.jit(do_not_specialize=["tokens", "capacity"])
def _attend_tile(
    q_ptr, k_ptr, v_ptr, first_ptr, start_ptr, out_ptr, partial_ptr, mass_ptr, tokens, capacity,
    HEADS: tl.constexpr, GROUP: tl.constexpr, DIM: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    SPLIT: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    """One tile of query rows of one key head, over one part of the keys. A row is a token and a head of the group."""
    kv_head = tl.program_id(1)
    split = tl.program_id(2)
    TOKENS: tl.constexpr = ROWS // GROUP  # in a tile; rows that are left over idle
    row = tl.arange(0, ROWS)
    dim = tl.arange(0, DIM)
    first_token = tl.program_id(0) * TOKENS
    token = first_token + row // GROUP
    exists = (token < tokens) & (row < TOKENS * GROUP)
    # Where the tile's first row lies in queries and outputs, and the others from there.
    corner = (first_token * HEADS + kv_head * GROUP) * DIM
    at = ((row // GROUP) * HEADS + row % GROUP)[:, None] * DIM + dim[None, :]
    q = tl.load(q_ptr + corner + at, exists[:, None], 0.0)

    start = tl.load(start_ptr)
    if CAUSAL:
        first = tl.maximum(0, start + first_token - WINDOW + 1) if WINDOW > 0 else 0
        end = start + tl.minimum(first_token + TOKENS, tokens)
    else:
        first = tl.load(first_ptr)
        end = start + tokens
    end = tl.minimum(end, capacity)
    part = tl.cdiv(tl.cdiv(end - first, KEYS), tl.num_programs(2)) * KEYS
    begin = first + split * part
    end = tl.minimum(begin + part, end)

    k_ptr += kv_head.to(tl.int64) * capacity * DIM
    v_ptr += kv_head.to(tl.int64) * capacity * DIM
    peak = tl.full((ROWS,), float("-inf"), tl.float32)  # of the scores, in powers of two
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, DIM), tl.float32)
    for base in range(begin, end, KEYS):
        key = base + tl.arange(0, KEYS)
        seen = key < end
        k = tl.load(k_ptr + key[None, :] * DIM + dim[:, None], seen[None, :], 0.0)
        scores = tl.dot(q, k, input_precision="ieee") * 1.4426950408889634  # log2(e)
        if CAUSAL:
            visible = key[None, :] <= start + token[:, None]
            if WINDOW > 0:
                visible = visible & (key[None, :] > start + token[:, None] - WINDOW)
        else:
            visible = seen[None, :]
        scores = tl.where(visible, scores, float("-inf"))
        risen = tl.maximum(peak, tl.max(scores, 1))
        shift = tl.where(risen == float("-inf"), 0.0, risen)  # a row may see none of these keys
        weights = tl.exp2(scores - shift[:, None])
        fade = tl.exp2(peak - shift)
        total = total * fade + tl.sum(weights, 1)
        v = tl.load(v_ptr + key[:, None] * DIM + dim[None, :], seen[:, None], 0.0)
        mixed = tl.dot(weights.to(v.dtype), v, mixed * fade[:, None], input_precision="ieee")
        peak = risen

    # Zero, but the compiler cannot know: else it computes the addresses below before the loop, where no registers are
    # left to keep them in.
    corner += (tl.load(start_ptr, volatile=True) - start) * DIM
    total = tl.where(total > 0, total, 1.0)  # of a part without keys
    mixed = mixed / total[:, None]
    if not SPLIT:
        tl.store(out_ptr + corner + at, mixed.to(out_ptr.dtype.element_ty), exists[:, None])
    else:
        corner += split * tokens * HEADS * DIM
        place = corner // DIM + (row // GROUP) * HEADS + row % GROUP
        tl.store(mass_ptr + place, peak + tl.log2(total), exists)
        if begin < end:
            tl.store(partial_ptr + corner + at, mixed, exists[:, None])


@triton.jit(do_not_specialize=["count"])
def _merge(
    partial_ptr, mass_ptr, out_ptr, count,
    HEADS: tl.constexpr, DIM: tl.constexpr, SPLITS: tl.constexpr, PLANES: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The mean of the parts' outputs by their masses (log2 of the sums of exponentials); empty parts hold no output."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    dim = tl.arange(0, DIM)
    peak = tl.full((ROWS,), float("-inf"), tl.float32)
    for split in tl.static_range(SPLITS):
        peak = tl.maximum(peak, tl.load(mass_ptr + split * count + row, row < count, 0.0))
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, DIM), tl.float32)
    for split in tl.static_range(SPLITS):
        weight = tl.exp2(tl.load(mass_ptr + split * count + row, row < count, 0.0) - peak)
        at = (split * count + row)[:, None].to(tl.int64) * DIM + dim[None, :]
        mixed += weight[:, None] * tl.load(partial_ptr + at, (weight > 0)[:, None] & (row < count)[:, None], 0.0)
        total += weight
    column = (row % HEADS)[:, None] * DIM + dim[None, :]
    at = (row // HEADS)[:, None] * (HEADS * DIM) + planar(column, HEADS * DIM, PLANES)
    tl.store(out_ptr + at, mixed / total[:, None], (row < count)[:, None])
