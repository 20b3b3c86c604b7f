"""The KV cache in buffers that stay where they are: so that a pass over it can be recorded once and run again.

What changes from pass to pass, how many positions are kept, stands in the device's memory. The host knows the same
numbers without asking, and makes room between the passes.
"""

from __future__ import annotations

import weakref
from typing import Protocol

import torch
from torch import Tensor

from dgemma_cli.model.cache import KVCache
from dgemma_cli.model.config import ModelConfig

_FIRST = 4096  # positions of a full layer at first: 84 MB in the published network
_GROWTH = 1024


class Recorded(Protocol):
    """What was recorded on a cache's buffers. nbytes: of the device's memory, that it keeps beside them."""

    @property
    def nbytes(self) -> int: ...


class Buffers:
    """The memory of one cache, and what was recorded on it.

    k, v: of each layer, [kv_heads, capacity, d]. numbers: int32 [4] on the device, see the properties; programs: by
    name, and forgotten when the buffers grow.
    """

    def __init__(self, config: ModelConfig, like: Tensor, reach: int, chunk: int) -> None:
        canvas, context = config.canvas_length, config.max_context
        self.reach = reach
        self.window = config.sliding_window
        self.sliding_capacity = min(reach + chunk, context) + canvas
        self.full_capacity = min(_FIRST, context) + canvas
        self.k: list[Tensor] = []
        for layer in config.layers:
            capacity = self.sliding_capacity if layer.sliding else self.full_capacity
            self.k.append(like.new_empty(layer.num_kv_heads, capacity, layer.head_dim))
        self.v = [torch.empty_like(k) for k in self.k]
        self.numbers = torch.zeros(4, dtype=torch.int32, device=like.device)
        self.programs: dict[str, Recorded] = {}

    @property
    def nbytes(self) -> int:
        """Bytes, with those of what was recorded. May be read by another thread."""
        return sum(each.nbytes for each in (*self.k, *self.v, *self.programs.copy().values()))

    def tell(self, sliding: int, first: int, length: int) -> None:
        """Write the numbers for the passes launched from now on."""
        for place, number in enumerate((sliding, first, length)):
            self.numbers[place].fill_(number)  # a launch with the number in it: nothing on the host to be kept alive

    @property
    def sliding(self) -> Tensor:
        """How many positions the sliding layers keep: where the next one is written."""
        return self.numbers[0:1]

    @property
    def first(self) -> Tensor:
        """The first of them that a canvas may look at."""
        return self.numbers[1:2]

    @property
    def length(self) -> Tensor:
        """How many positions the full layers keep, which is the position of the next token."""
        return self.numbers[2:3]

    @property
    def zero(self) -> Tensor:
        """The first position that a canvas sees in a full layer."""
        return self.numbers[3:4]


class Pool:
    """Where caches get their buffers. Those of a cache that is gone serve again, with what was recorded on them; one
    set at a time is kept for it.
    """

    def __init__(self, config: ModelConfig, like: Tensor, chunk: int) -> None:
        self.config, self.chunk = config, chunk
        self._like = like
        self._spare: list[Buffers] = []

    def take(self, user: object, reach: int) -> Buffers:
        """Buffers whose sliding layers keep ``reach`` positions, until ``user`` is gone."""
        buffers = self._spare.pop() if self._spare else None
        if buffers is None or buffers.reach < reach:
            buffers = Buffers(self.config, self._like, reach, self.chunk)
        weakref.finalize(user, _keep_one, self._spare, buffers)
        return buffers

    @property
    def spare_nbytes(self) -> int:
        """Bytes of the set that is kept."""
        return sum(buffers.nbytes for buffers in self._spare)


def _keep_one(spare: list[Buffers], buffers: Buffers) -> None:
    if not spare:
        spare.append(buffers)


class StaticCache(KVCache):
    """A ``KVCache`` on ``Buffers``: same lengths, same cuts. What attends is ``fused``.

    Full layers keep everything and grow by half at the least, which moves them. Sliding layers keep the last
    ``reach`` positions or more; when their room is used up, these move to the front. Behind the kept positions there is
    always room for a canvas.
    """

    def __init__(self, pool: Pool, slack: int) -> None:
        config = pool.config
        self.length = 0
        self._pool = pool
        self._config = config
        self._window = config.sliding_window
        self._reach = config.sliding_window - 1 + slack
        self.buffers = pool.take(self, self._reach)
        self._sliding = 0  # positions kept by the sliding layers
        self._open = False
        self._tell()

    @property
    def nbytes(self) -> int:
        """Bytes of all buffers, and of what was recorded on them."""
        return self.buffers.nbytes

    def copy(self) -> StaticCache:
        twin = StaticCache(self._pool, self._reach - (self._window - 1))
        twin.reserve(self.length)
        kept = min(self._sliding, self._reach)
        for index, layer in enumerate(self._config.layers):
            here, there = (self._sliding - kept, kept) if layer.sliding else (0, self.length)
            for mine, theirs in ((self.buffers.k, twin.buffers.k), (self.buffers.v, twin.buffers.v)):
                theirs[index][:, :there] = mine[index][:, here : here + there]
        twin.length, twin._sliding, twin._open = self.length, kept, self._open
        twin._tell()
        return twin

    def can_cut(self, length: int) -> bool:
        dropped = self.length - length
        if length < 0 or dropped < 0:
            raise ValueError(f"a cache of {self.length} tokens cannot be cut to {length}")
        return not self._open and self._sliding - dropped >= min(length, self._window - 1)

    def cut(self, length: int) -> bool:
        if not self.can_cut(length):
            return False
        self._sliding -= self.length - length
        self.length = length
        self._tell()
        return True

    def begin(self, new: int) -> None:
        """Before an encoder pass over ``new`` tokens: makes room for them and a canvas."""
        if new > self._pool.chunk:
            raise ValueError(f"{new} tokens are more than the {self._pool.chunk} of a pass")
        self._open = True
        self.reserve(self.length + new)
        if self._sliding + new + self._config.canvas_length > self.buffers.sliding_capacity:
            self._move_to_the_front()
        self._tell()

    def end(self, new: int) -> None:
        self.length += new
        self._sliding += new
        self._open = False
        self._tell()

    def reserve(self, positions: int) -> None:
        """Make room for so many positions and a canvas in the full layers; what was recorded is forgotten if they
        move.
        """
        buffers, canvas = self.buffers, self._config.canvas_length
        capacity = buffers.full_capacity
        if positions + canvas <= capacity:
            return
        capacity = max(positions + canvas, capacity + max(_GROWTH, capacity // 2))
        capacity = min(capacity, self._config.max_context + canvas)
        if buffers.programs and buffers.numbers.is_cuda:
            torch.cuda.synchronize(buffers.numbers.device)  # none of them may be under way
        buffers.programs.clear()
        for index, layer in enumerate(self._config.layers):
            for side in (buffers.k, buffers.v):
                # One that was interrupted in this work may have some that are long enough.
                if not layer.sliding and side[index].shape[1] < capacity:
                    grown = side[index].new_empty(layer.num_kv_heads, capacity, layer.head_dim)
                    grown[:, : self.length] = side[index][:, : self.length]
                    side[index] = grown
        buffers.full_capacity = capacity

    def _move_to_the_front(self) -> None:
        kept = min(self._sliding, self._reach)
        start = self._sliding - kept
        for index, layer in enumerate(self._config.layers):
            if layer.sliding:
                for side in (self.buffers.k, self.buffers.v):
                    side[index][:, :kept] = side[index][:, start : self._sliding].clone()
        self._sliding = kept

    def _tell(self) -> None:
        self.buffers.tell(self._sliding, max(0, self._sliding - (self._window - 1)), self.length)
