"""The tiles that the weight-bound kernels work in, by the GPU's compute capability.

What speaks for a size, in the order of weight:
- A program multiplies its weights by all tokens of the tile, so each weight is unpacked once for all of them: 32 tokens
  for the 16 to 24 that an expert gets in a step.
- ``rows`` of weights share one read of the activations: at 128 rows of 4 bits, 16 tokens add 45 % to what comes from
  the L2 cache. More rows leave too few programs for the last round, and too many sums for the registers.
- ``step`` words are 64 or 128 bytes of each row: whole sectors, and 16-byte copies.
- ``stages`` - 1 steps are on their way while one is worked on: 3 programs of 128 rows keep 54 KB or more under way on
  an H100's multiprocessor; 20 would do for its 3.3 TB/s at 0.8 microseconds.
- Compute capability 9.0 has ``wgmma`` for 4 warps and 64 rows; the weights go to it from registers. On 10.0 two warps
  keep to ``mma``: with four, Triton would carry the sums to tensor memory and back for every plane.

None of this is measured yet: ``OTHERS`` are what ``dgemma tune`` measures beside it, and what it found comes first.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeVar

import torch
import triton

from dgemma_cli.kernels.cuts import cut_of
from dgemma_cli.kernels.words import Words

Kernel = Literal["gate_up", "down", "dense", "gated"]
Kind = Literal["grouped", "dense"]
T = TypeVar("T")


class Tile(NamedTuple):
    """rows: of the weights, that a program works on; step: words of each row at a time; warps of a program; stages:
    steps that are loaded ahead, and the one at hand.
    """

    rows: int
    step: int
    warps: int
    stages: int


# By kind and the number of planes (4: 4-bit, 2: 8-bit, 1: bfloat16), for compute capabilities from the key on. 0 stands
# for the interpreter.
_TILES: dict[tuple[Kind, int], dict[int, Tile]] = {
    ("grouped", 4): {0: Tile(128, 32, 4, 3), 80: Tile(128, 32, 4, 4), 86: Tile(128, 32, 4, 3), 90: Tile(128, 32, 4, 4),
                     100: Tile(64, 32, 2, 4), 120: Tile(128, 32, 4, 3)},
    ("grouped", 2): {0: Tile(128, 32, 4, 3), 80: Tile(128, 32, 4, 4), 86: Tile(128, 32, 4, 3), 90: Tile(128, 64, 4, 4),
                     100: Tile(64, 32, 2, 4), 120: Tile(128, 32, 4, 3)},
    ("grouped", 1): {0: Tile(128, 32, 4, 3), 80: Tile(128, 64, 4, 4), 86: Tile(128, 64, 4, 3), 90: Tile(128, 64, 4, 4),
                     100: Tile(64, 64, 2, 4), 120: Tile(128, 64, 4, 3)},
    ("dense", 4): {0: Tile(128, 32, 4, 3), 80: Tile(128, 32, 8, 3), 86: Tile(128, 32, 8, 2), 90: Tile(128, 32, 8, 3),
                   100: Tile(64, 32, 2, 3), 120: Tile(128, 32, 8, 2)},
    ("dense", 2): {0: Tile(128, 32, 4, 3), 80: Tile(128, 64, 8, 3), 86: Tile(128, 64, 8, 2), 90: Tile(128, 64, 8, 3),
                   100: Tile(64, 32, 2, 3), 120: Tile(128, 64, 8, 2)},
    ("dense", 1): {0: Tile(128, 32, 4, 3), 80: Tile(128, 64, 8, 3), 86: Tile(128, 64, 8, 2), 90: Tile(128, 64, 8, 3),
                   100: Tile(64, 64, 2, 3), 120: Tile(128, 64, 8, 2)},
}  # fmt: skip
# What may be faster, by the same keys: smaller tiles for more programs, wider ones for fewer rounds, more warps where
# unpacking is what takes the time, more or fewer steps under way. Each compiles within the card's limits.
_OTHERS: dict[tuple[Kind, int], dict[int, tuple[Tile, ...]]] = {
    ("grouped", 4): {
        0: (Tile(64, 32, 4, 3),),
        80: (Tile(128, 32, 4, 3), Tile(128, 32, 4, 5), Tile(128, 32, 8, 4), Tile(64, 32, 4, 4), Tile(64, 32, 4, 5),
             Tile(64, 32, 2, 4), Tile(64, 64, 4, 3), Tile(128, 64, 8, 3)),
        86: (Tile(128, 32, 4, 4), Tile(128, 32, 8, 3), Tile(64, 32, 4, 3), Tile(64, 32, 4, 4), Tile(64, 32, 2, 3),
             Tile(64, 32, 2, 4), Tile(64, 64, 4, 3)),
        90: (Tile(128, 32, 4, 3), Tile(128, 32, 4, 5), Tile(128, 32, 8, 4), Tile(64, 32, 4, 4), Tile(64, 32, 4, 5),
             Tile(64, 32, 2, 4), Tile(64, 64, 4, 3), Tile(128, 64, 8, 3)),
        100: (Tile(64, 32, 2, 3), Tile(64, 32, 2, 5), Tile(64, 64, 2, 3), Tile(64, 64, 2, 4), Tile(32, 32, 2, 4),
              Tile(32, 64, 2, 4)),
        120: (Tile(128, 32, 4, 4), Tile(128, 32, 8, 3), Tile(64, 32, 4, 3), Tile(64, 32, 4, 4), Tile(64, 32, 2, 3),
              Tile(64, 32, 2, 4), Tile(64, 64, 4, 3)),
    },
    ("grouped", 2): {
        0: (Tile(64, 32, 4, 3),),
        80: (Tile(128, 32, 4, 5), Tile(128, 32, 8, 4), Tile(64, 32, 4, 4), Tile(64, 32, 2, 4), Tile(64, 64, 4, 4),
             Tile(64, 64, 2, 4), Tile(128, 64, 4, 4), Tile(128, 64, 8, 4)),
        86: (Tile(128, 32, 4, 4), Tile(128, 32, 8, 3), Tile(64, 32, 4, 4), Tile(64, 32, 2, 4), Tile(64, 64, 4, 3),
             Tile(64, 64, 2, 3), Tile(128, 64, 8, 3)),
        90: (Tile(128, 32, 4, 4), Tile(128, 32, 4, 5), Tile(64, 32, 4, 5), Tile(64, 64, 4, 4), Tile(64, 64, 4, 5),
             Tile(64, 64, 2, 4), Tile(128, 64, 4, 3), Tile(128, 64, 8, 4)),
        100: (Tile(64, 32, 2, 5), Tile(64, 64, 2, 3), Tile(64, 64, 2, 4), Tile(32, 64, 2, 4)),
        120: (Tile(128, 32, 4, 4), Tile(128, 32, 8, 3), Tile(64, 32, 4, 4), Tile(64, 32, 2, 4), Tile(64, 64, 4, 3),
              Tile(64, 64, 2, 3), Tile(128, 64, 8, 3)),
    },
    ("grouped", 1): {
        0: (Tile(64, 32, 4, 3),),
        80: (Tile(128, 64, 4, 3), Tile(128, 64, 8, 4), Tile(128, 32, 4, 5), Tile(64, 64, 4, 4), Tile(64, 64, 4, 5),
             Tile(64, 64, 2, 4), Tile(64, 128, 4, 3)),
        86: (Tile(128, 64, 8, 3), Tile(128, 32, 4, 4), Tile(64, 64, 4, 3), Tile(64, 64, 4, 4), Tile(64, 64, 2, 4),
             Tile(64, 32, 4, 5)),
        90: (Tile(128, 64, 4, 3), Tile(128, 64, 8, 4), Tile(128, 32, 4, 5), Tile(64, 64, 4, 4), Tile(64, 64, 4, 5),
             Tile(64, 64, 2, 4), Tile(64, 128, 4, 3)),
        100: (Tile(64, 64, 2, 3), Tile(64, 64, 2, 5), Tile(64, 128, 2, 3), Tile(32, 128, 2, 3)),
        120: (Tile(128, 64, 8, 3), Tile(128, 32, 4, 4), Tile(64, 64, 4, 3), Tile(64, 64, 4, 4), Tile(64, 64, 2, 4),
              Tile(64, 32, 4, 5)),
    },
    ("dense", 4): {
        0: (Tile(64, 32, 4, 3),),
        80: (Tile(128, 32, 8, 4), Tile(128, 32, 8, 2), Tile(64, 32, 4, 3), Tile(64, 32, 8, 3), Tile(64, 32, 4, 4)),
        86: (Tile(64, 32, 4, 2), Tile(64, 32, 4, 3), Tile(64, 32, 8, 3)),
        90: (Tile(128, 32, 8, 4), Tile(128, 32, 8, 2), Tile(64, 32, 4, 3), Tile(64, 32, 4, 4), Tile(128, 64, 8, 2)),
        100: (Tile(64, 32, 2, 4), Tile(64, 64, 2, 3), Tile(32, 32, 2, 4)),
        120: (Tile(64, 32, 4, 2), Tile(64, 32, 4, 3), Tile(64, 32, 8, 3)),
    },
    ("dense", 2): {
        0: (Tile(64, 32, 4, 3),),
        80: (Tile(128, 64, 8, 2), Tile(128, 32, 8, 3), Tile(128, 32, 8, 4), Tile(64, 64, 8, 3), Tile(64, 32, 4, 4)),
        86: (Tile(128, 32, 8, 2), Tile(128, 32, 8, 3), Tile(64, 64, 8, 2), Tile(64, 32, 4, 3), Tile(64, 32, 4, 4)),
        90: (Tile(128, 64, 8, 2), Tile(128, 32, 8, 3), Tile(128, 32, 8, 4), Tile(64, 64, 4, 3), Tile(64, 64, 4, 4),
             Tile(64, 32, 4, 4)),
        100: (Tile(64, 32, 2, 4), Tile(64, 64, 2, 3), Tile(32, 64, 2, 3)),
        120: (Tile(128, 32, 8, 2), Tile(128, 32, 8, 3), Tile(64, 64, 8, 2), Tile(64, 32, 4, 3), Tile(64, 32, 4, 4)),
    },
    ("dense", 1): {0: ()},
}  # fmt: skip
# The most tokens of a program: more sums would not fit into the registers.
_MOST_TOKENS: dict[Kind, dict[int, int]] = {
    "grouped": {0: 64, 80: 32, 90: 64, 100: 32},
    "dense": {0: 128, 100: 32, 120: 128},
}


def interpreting() -> bool:
    """Whether kernels run in Triton's interpreter instead of on a GPU."""
    return bool(triton.knobs.runtime.interpret)


def use_of(kernel: Kernel, words: Words, tokens: int) -> str:
    """The name of a use (``cuts``). tokens: that a program takes at once."""
    return f"{kernel} {words.form} {words.rows}x{words.columns} by {tokens}"


def tile(kernel: Kernel, words: Words, tokens: int, device: torch.device) -> Tile:
    """The tile to work in on ``device``, where kernels run."""
    measured = cut_of(use_of(kernel, words, tokens), device)
    return usual_tile(kernel, words.planes) if measured is None else Tile(*measured)


def usual_tile(kernel: Kernel, planes: int) -> Tile:
    """The tile for the current GPU, where none was measured."""
    return _for_this_gpu(_TILES[_kind(kernel), planes])


def other_tiles(kernel: Kernel, planes: int) -> list[Tile]:
    """Tiles that may be faster on the current GPU."""
    usual, kind = usual_tile(kernel, planes), _kind(kernel)
    return [other for other in _for_this_gpu(_OTHERS[kind, planes]) if other != usual]


def tokens_in_tile(kind: Kind, rows: float) -> int:
    """How many tokens a program takes at once, where ``rows`` are to be multiplied by the same weights on average."""
    # An expert's tokens spread around the mean: most should fit one tile, which unpacks the weights once.
    wanted = rows if kind == "dense" else rows * 1.5
    tokens = 16
    while tokens < wanted:
        tokens *= 2
    return min(tokens, _for_this_gpu(_MOST_TOKENS[kind]))


def _for_this_gpu(table: dict[int, T]) -> T:
    capability = 0 if interpreting() else triton.runtime.driver.active.get_current_target().arch
    return table[max(known for known in table if known <= capability)]


def _kind(kernel: Kernel) -> Kind:
    return "dense" if kernel in ("dense", "gated") else "grouped"
