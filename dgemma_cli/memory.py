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
from dgemma_cli.weights.checkpoint import Checkpoint, read_checkpoint
from dgemma_cli.weights.formats import PLAIN_DTYPES
from dgemma_cli.weights.layout import PackedEmbeddingSpec, PackedExpertsSpec, Plan, make_plan
from dgemma_cli.weights.recipe import AS_STORED, PARTS, Recipe, part_of
from dgemma_cli.weights.scheme import Scheme

Kind = Literal["cpu", "cuda"]

_ITEM_BYTES = {"float32": 4, "bfloat16": 2}
# As they are held: the first dtype of a format's part is that of its buffer.
_PACKED_BYTES = {"F32": 4, "BF16": 2, "F16": 2, "I32": 4, "U8": 1, "F8_E4M3": 1}

# Python with torch and the program itself, before a model is there: 0.24 GB measured on a CPU build. CUDA contexts were
# seen from 0.1 to 0.6 GB.
_PROCESS = {"cpu": 250_000_000, "cuda": 500_000_000}
# The most float32 copies of a canvas's logits that a denoising step holds at once. On a CPU measured, on a model of
# 262,144 tokens and next to nothing else, in bfloat16, with what the libraries keep of freed memory. On a GPU computed,
# not measured: the scores in bfloat16 (half a copy) and two copies on the way to the soft cap; later the logits, the
# probabilities, and these in bfloat16.
_LOGITS = {"cpu": 5.5, "cuda": 2.5}
# Bytes for each value of the largest packed matrix while it is unpacked: indices, float32 values, the result.
_UNPACKING = 10
# Rows of a packed embedding that are unpacked at once.
_BLOCK = 4096
# How the KV cache of a full layer grows, and how many tokens the encoder takes at once.
_GROWTH = _CHUNK = 1024
_FIRST = 4096  # positions of a full layer in a static cache, at first


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes that a model needs on one device. working: for computing a step; process: whatever is loaded.

    host: of the host's memory, for experts that are kept there; not a part of the total.
    """

    weights: int
    cache: int
    working: int
    process: int
    host: int = 0

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
    largest piece of one, that is unpacked at once; experts: bytes of one layer's, 0 where layers differ; formats: how
    each part of the network is packed, in words.
    """

    config: ModelConfig
    dtype: str
    weights: int
    largest: int
    experts: int = 0
    formats: tuple[tuple[str, str], ...] = ()

    def needs(self, context: int, kind: Kind, offloaded: int = 0) -> Needs:
        """What running with ``context`` tokens, prompt and reply, takes on a device of this kind.

        offloaded: layers whose experts are kept in the host's memory; two of these are on the device at any time.
        """
        return Needs(
            weights=self.weights - (offloaded - min(2, offloaded)) * self.experts,
            cache=cache_bytes(self.config, context, self.dtype, static=kind == "cuda"),
            working=_working(self.config, context, self.dtype, kind) + self.largest * _UNPACKING,
            process=_PROCESS[kind],
            host=offloaded * self.experts,
        )

    def longest_context(self, room: int, kind: Kind, offloaded: int = 0) -> int:
        """The most tokens that ``room`` bytes allow, a multiple of 1,024 or the model's own limit; 0 if none."""
        low, high = 0, self.config.max_context // 1024
        while low < high:
            middle = (low + high + 1) // 2
            if self.needs(middle * 1024, kind, offloaded).total <= room:
                low = middle
            else:
                high = middle - 1
        return low * 1024


def of_folder(folder: Path, dtype: str = "bfloat16") -> Footprint:
    """Of a checkpoint on this machine, by its headers. Raises CheckpointError, ModelUnavailable."""
    return of_checkpoint(read_checkpoint(folder), dtype)


def of_checkpoint(checkpoint: Checkpoint, dtype: str = "bfloat16", recipe: Recipe = AS_STORED) -> Footprint:
    """Of a checkpoint, packed anew by ``recipe``. Raises CheckpointError if it cannot be packed so."""
    plan = checkpoint.plan if recipe == AS_STORED else checkpoint.repacked(recipe)
    return _footprint(checkpoint.config, plan, dtype)


@lru_cache  # a plan has up to 47,000 tensors
def of_scheme(config: ModelConfig, scheme: Scheme, dtype: str = "bfloat16") -> Footprint:
    """Of a checkpoint that is not here, by its configuration alone."""
    return _footprint(config, make_plan(config, scheme, lambda _: None), dtype)


def _footprint(config: ModelConfig, plan: Plan, dtype: str) -> Footprint:
    weights = 0
    experts = [0] * len(config.layers)
    for slot in plan.slots:
        if slot.target:
            plain = slot.part.dtypes == PLAIN_DTYPES
            size = prod(slot.shape) * (_ITEM_BYTES[dtype] if plain else _PACKED_BYTES[slot.part.dtypes[0]])
            weights += size
            _, _, layer, module, *_ = (*slot.target.split(".", 4), "", "", "")
            if module == "experts":
                experts[int(layer)] += size
    largest = 0
    for spec in plan.packed.values():
        if isinstance(spec, PackedExpertsSpec):
            largest = max(largest, 2 * config.moe_intermediate_size * config.hidden_size)
        elif isinstance(spec, PackedEmbeddingSpec):
            largest = max(largest, min(spec.rows, _BLOCK) * spec.columns)
        else:
            largest = max(largest, *(rows * spec.columns for rows, form in spec.parts if form is not None))
    same = len(set(experts)) == 1
    return Footprint(config, dtype, weights, largest, experts[0] if same else 0, _formats(plan))


def _formats(plan: Plan) -> tuple[tuple[str, str], ...]:
    found: dict[str, dict[str, None]] = {part: {} for part in PARTS}  # an ordered set each
    for matrix in plan.matrices.values():
        part = part_of(matrix.name)
        if part is not None:
            found[part][matrix.format.label.split()[0] if matrix.format is not None else "plain"] = None
    return tuple((part, " and ".join(labels)) for part, labels in found.items())


def cache_bytes(config: ModelConfig, context: int, dtype: str = "bfloat16", static: bool = False) -> int:
    """Bytes of the KV cache of one conversation once ``context`` tokens are kept, with room for a canvas.

    The buffers of full layers grow by halves, so that up to a third of them may be spare. static: as in
    ``model.static_cache``, where they begin larger, and sliding layers have room for a pass of the encoder.
    """
    canvas, window, most = config.canvas_length, config.sliding_window - 1, config.max_context
    capacity, sliding = canvas + _GROWTH, window
    if static:
        capacity, sliding = canvas + min(_FIRST, most), min(window + _CHUNK, most)
    for kept in [*range(_CHUNK, context, _CHUNK), context]:
        if kept + canvas > capacity:
            capacity = max(kept + canvas, capacity + max(_GROWTH, capacity // 2))
            if static:
                capacity = min(capacity, most + canvas)
    total = 0
    for layer in config.layers:
        positions = sliding + canvas if layer.sliding else capacity
        total += 2 * layer.num_kv_heads * layer.head_dim * positions * _ITEM_BYTES[dtype]
    return total


def _working(config: ModelConfig, context: int, dtype: str, kind: Kind) -> int:
    """The larger of a denoising step's peak and an encoder pass's."""
    step = int(_LOGITS[kind] * 4 * config.canvas_length * config.vocab_size)
    # A chunk's rows, once for each expert they go to, with what the experts make of them.
    rows = min(context, _CHUNK) * config.top_k_experts
    routed = rows * 3 * (config.hidden_size + config.moe_intermediate_size) * _ITEM_BYTES[dtype]
    return max(step, routed)
