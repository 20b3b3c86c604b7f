"""How much memory a model needs, computed before anything is loaded or even fetched. Imports no torch.

Weights are exact: from the layout that config.json alone determines, or from the headers of the files. The KV cache is
exact as the cache allocates it. What computing takes beside them is measured; the constants below say how.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Literal

from dgemma_cli.model.config import ModelConfig
from dgemma_cli.weights.checkpoint import read_checkpoint
from dgemma_cli.weights.formats import PLAIN_DTYPES
from dgemma_cli.weights.layout import PackedEmbeddingSpec, PackedExpertsSpec, Plan, make_plan
from dgemma_cli.weights.scheme import Scheme

Kind = Literal["cpu", "cuda"]

_ITEM_BYTES = {"float32": 4, "bfloat16": 2}
# As they are held: the first dtype of a format's part is that of its buffer.
_PACKED_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1}

# Python with torch and the program itself, before a model is there: 0.24 GB measured on a CPU build. CUDA contexts were
# seen from 0.1 to 0.6 GB.
_PROCESS = {"cpu": 250_000_000, "cuda": 500_000_000}
# The most float32 copies of a canvas's logits that a denoising step holds at once; measured on a CPU, on a model of
# 262,144 tokens and next to nothing else, in bfloat16.
_LOGITS = 5.5
# Bytes for each value of the largest packed matrix while it is unpacked: indices, float32 values, the result.
_UNPACKING = 10
# Rows of a packed embedding that are unpacked at once.
_BLOCK = 4096
# How the KV cache of a full layer grows, and how many tokens the encoder takes at once.
_GROWTH = _CHUNK = 1024


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that a model needs on one device. working: for computing a step; process: whatever is loaded."""

    weights: int
    cache: int
    working: int
    process: int

    @property
    def total(self) -> int:
        """All of it, at the peak."""
        return self.weights + self.cache + self.working + self.process

    def as_dict(self) -> dict[str, int]:
        """For JSON."""
        return asdict(self) | {"total": self.total}


@dataclass(frozen=True, slots=True)
class Footprint:
    """What of a model's needs does not hang on the context. largest: values of the largest packed matrix, or of the
    largest piece of one, that is unpacked at once.
    """

    config: ModelConfig
    dtype: str
    weights: int
    largest: int

    def needs(self, context: int, kind: Kind) -> Needs:
        """What running with ``context`` tokens, prompt and reply, takes on a device of this kind."""
        return Needs(
            weights=self.weights,
            cache=cache_bytes(self.config, context, self.dtype),
            working=_working(self.config, context, self.dtype) + self.largest * _UNPACKING,
            process=_PROCESS[kind],
        )

    def longest_context(self, room: int, kind: Kind) -> int:
        """The most tokens that ``room`` bytes allow, a multiple of 1,024 or the model's own limit; 0 if none."""
        low, high = 0, self.config.max_context // 1024
        while low < high:
            middle = (low + high + 1) // 2
            if self.needs(middle * 1024, kind).total <= room:
                low = middle
            else:
                high = middle - 1
        return low * 1024


def of_folder(folder: Path, dtype: str = "bfloat16") -> Footprint:
    """Of a checkpoint on this machine, by its headers. Raises CheckpointError, ModelUnavailable."""
    checkpoint = read_checkpoint(folder)
    return _footprint(checkpoint.config, checkpoint.plan, dtype)


@lru_cache  # a plan has up to 47,000 tensors
def of_scheme(config: ModelConfig, scheme: Scheme, dtype: str = "bfloat16") -> Footprint:
    """Of a checkpoint that is not here, by its configuration alone."""
    return _footprint(config, make_plan(config, scheme, lambda _: None), dtype)


def _footprint(config: ModelConfig, plan: Plan, dtype: str) -> Footprint:
    weights = 0
    for slot in plan.slots:
        if slot.target:
            plain = slot.part.dtypes == PLAIN_DTYPES
            weights += prod(slot.shape) * (_ITEM_BYTES[dtype] if plain else _PACKED_BYTES[slot.part.dtypes[0]])
    largest = 0
    for spec in plan.packed.values():
        if isinstance(spec, PackedExpertsSpec):
            largest = max(largest, 2 * config.moe_intermediate_size * config.hidden_size)
        elif isinstance(spec, PackedEmbeddingSpec):
            largest = max(largest, min(spec.rows, _BLOCK) * spec.columns)
        else:
            largest = max(largest, *(rows * spec.columns for rows, form in spec.parts if form is not None))
    return Footprint(config, dtype, weights, largest)


def cache_bytes(config: ModelConfig, context: int, dtype: str = "bfloat16") -> int:
    """Bytes of the KV cache of one conversation once ``context`` tokens are kept, with room for a canvas.

    The buffers of full layers grow by halves, so that up to a third of them may be spare.
    """
    canvas = config.canvas_length
    capacity = canvas + _GROWTH
    for kept in [*range(_CHUNK, context, _CHUNK), context]:
        if kept + canvas > capacity:
            capacity = max(kept + canvas, capacity + max(_GROWTH, capacity // 2))
    total = 0
    for layer in config.layers:
        positions = config.sliding_window - 1 + canvas if layer.sliding else capacity
        total += 2 * layer.num_kv_heads * layer.head_dim * positions * _ITEM_BYTES[dtype]
    return total


def _working(config: ModelConfig, context: int, dtype: str) -> int:
    """The larger of a denoising step's peak and an encoder pass's."""
    step = int(_LOGITS * 4 * config.canvas_length * config.vocab_size)
    # A chunk's rows, once for each expert they go to, with what the experts make of them.
    rows = min(context, _CHUNK) * config.top_k_experts
    routed = rows * 3 * (config.hidden_size + config.moe_intermediate_size) * _ITEM_BYTES[dtype]
    return max(step, routed)
