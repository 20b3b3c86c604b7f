"""A canvas's logits read twice, and written nowhere but as the probabilities that the next step asks for.

The first look sums each tile of the vocabulary for itself; one program a row then combines the tiles' sums, finds the
tile in which the drawn id lies and looks at that one tile again; the last look writes probabilities. The exponentials
are powers of two. The reference is ``sampling.statistics.predict`` with ``sampling.draws.pick_by_inverse_cdf``.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from dgemma_cli.kernels.launch import require
from dgemma_cli.kernels.operations import Sampled

TILE = 4096  # ids a program looks at: 32 for each of 128 threads


def sample(
    scores: Tensor,
    cap: float | None,
    temperature: Tensor,
    uniform: Tensor,
    out: Sampled | None = None,
    tile: int = TILE,
) -> Sampled:
    """What a step needs to know of ``scores`` [C, V], bfloat16 or float32, which are first capped: cap * tanh(x / cap).

    temperature: float32 [1]; uniform: float32 [C] in [0, 1). The draft is the lowest of the ids of equal logits. The
    id picked is the first at which the cumulated probability exceeds the uniform number, to within rounding; never one
    of probability zero. Probabilities have the dtype of ``scores``. out: buffers. tile: a power of two.
    """
    rows, vocab = scores.shape
    if out is None:
        ids = torch.empty(2, rows, dtype=torch.int64, device=scores.device)
        entropy = torch.empty(rows, dtype=torch.float32, device=scores.device)
        out = Sampled(ids[0], entropy, ids[1], torch.empty_like(scores))
    require(scores, temperature, uniform, *out)
    tiles = triton.cdiv(vocab, tile)
    sums = torch.empty(3, rows, tiles, dtype=torch.float32, device=scores.device)
    best = torch.empty(rows, tiles, dtype=torch.int32, device=scores.device)
    whole = torch.empty(2, rows, dtype=torch.float32, device=scores.device)
    capping = cap or 1.0, cap is not None
    warps = max(1, min(4, tile // 1024))
    _sum_tiles[(rows, tiles)](scores, temperature, sums, best, vocab, *capping, tile, num_warps=warps)
    _draw[(rows,)](
        scores, temperature, uniform, sums, best, out.draft, out.entropy, out.picked, whole, vocab, tiles, *capping,
        tile, triton.next_power_of_2(tiles), num_warps=warps,
    )  # fmt: skip
    _probabilities[(rows, tiles)](
        scores, temperature, whole, out.probabilities, vocab, *capping, tile, num_warps=warps
    )  # fmt: skip
    return out


@triton.jit
def _logits(scores_ptr, row, column, vocab, cap, CAPPED: tl.constexpr):
    """Logits of a row at ``column``, float32, -inf beyond the vocabulary."""
    x = tl.load(scores_ptr + row.to(tl.int64) * vocab + column, column < vocab, 0.0).to(tl.float32)
    if CAPPED:
        # tanh(y) = 1 - 2 / (exp(2 y) + 1), which is 1 long before exp overflows.
        power = tl.exp2(tl.minimum(x * (2 * 1.4426950408889634 / cap), 64.0))
        x = cap * (1.0 - 2.0 / (power + 1.0))
    return tl.where(column < vocab, x, float("-inf"))


@triton.jit
def _sum_tiles(
    scores_ptr, temperature_ptr, sums_ptr, best_ptr, vocab, cap, CAPPED: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    """Of each tile: its peak and where that is; the sum of 2^below and of below * 2^below, where ``below`` is how far a
    logit lies under the peak, over the temperature.
    """
    row, tile = tl.program_id(0), tl.program_id(1)
    column = tile * TILE + tl.arange(0, TILE)
    logits = _logits(scores_ptr, row, column, vocab, cap, CAPPED)
    scale = 1.4426950408889634 / tl.load(temperature_ptr)  # log2(e) / T
    peak = tl.max(logits, 0)
    below = (logits - peak) * scale
    mass = tl.exp2(below)
    spread = mass * tl.where(column < vocab, below, 0.0)
    tiles = tl.num_programs(1)
    count = tl.num_programs(0) * tiles
    at = row * tiles + tile
    tl.store(sums_ptr + at, peak)
    tl.store(sums_ptr + count + at, tl.sum(mass, 0))
    tl.store(sums_ptr + 2 * count + at, tl.sum(spread, 0))
    tl.store(best_ptr + at, tl.min(tl.where(logits == peak, column, vocab), 0))


@triton.jit
def _draw(
    scores_ptr, temperature_ptr, uniform_ptr, sums_ptr, best_ptr, draft_ptr, entropy_ptr, picked_ptr, whole_ptr,
    vocab, tiles, cap, CAPPED: tl.constexpr, TILE: tl.constexpr, TILES: tl.constexpr,
):  # fmt: skip
    """Combine a row's tiles, and draw from the one in which the cumulated mass passes the threshold."""
    row = tl.program_id(0)
    rows = tl.num_programs(0)
    tile = tl.arange(0, TILES)
    exists = tile < tiles
    at = row * tiles + tile
    scale = 1.4426950408889634 / tl.load(temperature_ptr)
    peaks = tl.load(sums_ptr + at, exists, float("-inf"))
    masses = tl.load(sums_ptr + rows * tiles + at, exists, 0.0)
    spreads = tl.load(sums_ptr + 2 * rows * tiles + at, exists, 0.0)
    best = tl.load(best_ptr + at, exists, vocab)
    peak = tl.max(peaks, 0)
    tl.store(draft_ptr + row, tl.min(tl.where(peaks == peak, best, vocab), 0).to(tl.int64))

    lower = tl.where(exists, (peaks - peak) * scale, 0.0)
    fade = tl.where(exists, tl.exp2(lower), 0.0)
    total = tl.sum(masses * fade, 0)
    mean = tl.sum(fade * (spreads + masses * lower), 0) / total
    tl.store(entropy_ptr + row, 0.6931471805599453 * (tl.log2(total) - mean))  # ln(2)
    tl.store(whole_ptr + row, peak)
    tl.store(whole_ptr + rows + row, 1.0 / total)

    masses *= fade
    passed = tl.cumsum(masses, 0)
    threshold = tl.load(uniform_ptr + row) * tl.max(passed, 0)
    # A running sum may pass the threshold by rounding alone, or never: an id must have mass, and the last one has.
    last = tl.max(tl.where(masses > 0, tile, 0), 0)
    chosen = tl.min(tl.where((passed > threshold) & (masses > 0), tile, last), 0)
    threshold -= tl.sum(tl.where(tile == chosen - 1, passed, 0.0), 0)

    column = chosen * TILE + tl.arange(0, TILE)
    logits = _logits(scores_ptr, row, column, vocab, cap, CAPPED)
    mass = tl.exp2((logits - peak) * scale)
    passed_here = tl.cumsum(mass, 0)
    last_here = tl.max(tl.where(mass > 0, column, 0), 0)
    picked = tl.min(tl.where((passed_here > threshold) & (mass > 0), column, last_here), 0)
    tl.store(picked_ptr + row, picked.to(tl.int64))


@triton.jit
def _probabilities(
    scores_ptr, temperature_ptr, whole_ptr, out_ptr, vocab, cap, CAPPED: tl.constexpr, TILE: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0)
    column = tl.program_id(1) * TILE + tl.arange(0, TILE)
    logits = _logits(scores_ptr, row, column, vocab, cap, CAPPED)
    scale = 1.4426950408889634 / tl.load(temperature_ptr)
    mass = tl.exp2((logits - tl.load(whole_ptr + row)) * scale)
    share = mass * tl.load(whole_ptr + tl.num_programs(0) + row)
    tl.store(out_ptr + row.to(tl.int64) * vocab + column, share, column < vocab)
