"""Text that repeats itself without end: found at the end of what is written. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

_LONGEST = 32  # tokens of a cycle, at the most
_ROUNDS = 4  # of a cycle, at the least


def looping(ids: Sequence[int], least: int) -> int:
    """How many tokens at the end of ``ids`` only repeat the cycle before them, 0 if that is no loop.

    A loop is a cycle of up to 32 tokens, gone through four times or more, ``least`` tokens long at the least. It must
    reach the very end: people do write "ha ha ha", rules of dashes and rows of zeros, and then go on.
    """
    for cycle in range(1, min(_LONGEST, len(ids) // _ROUNDS) + 1):
        repeated = 0
        while repeated + cycle < len(ids) and ids[-1 - repeated] == ids[-1 - repeated - cycle]:
            repeated += 1
        if repeated + cycle >= max(least, _ROUNDS * cycle):
            return repeated
    return 0
