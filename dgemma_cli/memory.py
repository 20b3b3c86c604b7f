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
# Bytes for each value of the largest packed matrix while torch unpacks it: indices, float32 values, the result; and for
# each value of rows of a packed embedding, which Triton's path unpacks too: codes, float32 and the result.
_UNPACKING, _UNPACKING_ROWS = 10, 7
# cuBLAS's own memory on a Hopper GPU, where it takes most, for each stream that it is used on; recordings are made on
# two of their own.
_WORKSPACE, _STREAMS = 32 << 20, 3
# Rows of a packed embedding that are unpacked at once.
_BLOCK = 4096
# How the KV cache of a full layer grows, how many tokens the encoder takes at once, and how many positions the sliding
# layers of a cache that goes on keep beyond their window.
_GROWTH = _CHUNK = _SLACK = 1024
_QUERIES = 256  # that attend at once in torch
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
class Work:
    """What is written with a model. canvases: of one reply side by side (--best-of); replies: written in turns, each
    with a cache of its own, and share passes where no steps are recorded; at_rest: bytes for the caches of others;
    goes_on: caches serve for the replies that follow, and can be cut back; plain: some steps run in the plain loop, not
    a recorded one, as those of a second writing do (--repair); triton: on CUDA, Triton's kernels compute, and steps are
    recorded.
    """

    canvases: int = 1
    replies: int = 1
    at_rest: int = 0
    goes_on: bool = False
    plain: bool = False
    triton: bool = True

    def in_a_pass(self, fused: bool) -> int:
        """The most canvases that are denoised together."""
        return self.canvases if fused else max(self.canvases, self.replies)


USUAL = Work()


@dataclass(frozen=True, slots=True)
class Footprint:
    """What of a model's needs does not hang on the context. largest: values of the largest packed matrix, or of the
    largest piece of one, that is unpacked at once; rows: the same of a packed embedding alone; experts: bytes of one
    layer's, 0 where layers differ; formats: how each part of the network is packed, in words.
    """

    config: ModelConfig
    dtype: str
    weights: int
    largest: int
    rows: int = 0
    experts: int = 0
    formats: tuple[tuple[str, str], ...] = ()

    def needs(self, context: int, kind: Kind, offloaded: int = 0, work: Work = USUAL) -> Needs:
        """What running with ``context`` tokens, prompt and reply, takes on a device of this kind.

        offloaded: layers whose experts are kept in the host's memory; two of these are on the device at any time.
        """
        fused = kind == "cuda" and work.triton
        unpacking = self.rows * _UNPACKING_ROWS if fused else self.largest * _UNPACKING
        return Needs(
            weights=self.weights - (offloaded - min(2, offloaded)) * self.experts,
            cache=work.replies * cache_bytes(self.config, context, self.dtype, fused, work.goes_on) + work.at_rest,
            working=_working(self.config, context, self.dtype, kind, fused, work) + unpacking,
            process=_PROCESS[kind],
            host=offloaded * self.experts,
        )

    def longest_context(self, room: int, kind: Kind, offloaded: int = 0, work: Work = USUAL) -> int:
        """The most tokens that ``room`` bytes allow, a multiple of 1,024 or the model's own limit; 0 if none."""
        low, high = 0, self.config.max_context // 1024
        while low < high:
            middle = (low + high + 1) // 2
            if self.needs(middle * 1024, kind, offloaded, work).total <= room:
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


@lru_cache
def of_scheme(config: ModelConfig, scheme: Scheme, dtype: str = "bfloat16") -> Footprint:
    """Of a checkpoint that is not here, by its configuration alone."""
    # One expert is counted for all that are like it: they have nearly all of the 47,000 tensors.
    return _footprint(config, make_plan(config, scheme, lambda _: None, one_expert=True), dtype, config.num_experts)


def _footprint(config: ModelConfig, plan: Plan, dtype: str, alike: int = 1) -> Footprint:
    """alike: for how many experts each that is stored by itself stands."""
    weights = 0
    experts = [0] * len(config.layers)
    for slot in plan.slots:
        if slot.target:
            plain = slot.part.dtypes == PLAIN_DTYPES
            size = prod(slot.shape) * (_ITEM_BYTES[dtype] if plain else _PACKED_BYTES[slot.part.dtypes[0]])
            _, _, layer, module, *_ = (*slot.target.split(".", 4), "", "", "")
            if module == "experts":
                size *= alike if slot.place else 1
                experts[int(layer)] += size
            weights += size
    largest = rows = 0
    for spec in plan.packed.values():
        if isinstance(spec, PackedExpertsSpec):
            largest = max(largest, 2 * config.moe_intermediate_size * config.hidden_size)
        elif isinstance(spec, PackedEmbeddingSpec):
            rows = min(spec.rows, _BLOCK) * spec.columns
            largest = max(largest, rows)
        else:
            heights = [height * spec.stack for height, form in spec.parts if form is not None]
            largest = max(largest, max(heights) * spec.columns)
    same = len(set(experts)) == 1
    return Footprint(config, dtype, weights, largest, rows, experts[0] if same else 0, _formats(plan))


def _formats(plan: Plan) -> tuple[tuple[str, str], ...]:
    found: dict[str, dict[str, None]] = {part: {} for part in PARTS}  # an ordered set each
    for matrix in plan.matrices.values():
        part = part_of(matrix.name)
        if part is not None:
            found[part][matrix.format.label.split()[0] if matrix.format is not None else "plain"] = None
    return tuple((part, " and ".join(labels)) for part, labels in found.items())


def cache_bytes(
    config: ModelConfig, context: int, dtype: str = "bfloat16", static: bool = False, goes_on: bool = False
) -> int:
    """Bytes of the KV cache of one conversation once ``context`` tokens are kept, with room for a canvas.

    The buffers of full layers grow by halves, so that up to a third of them may be spare. static: as in
    ``model.static_cache``, where they begin larger, and sliding layers have room for a pass of the encoder. goes_on: as
    an ``engine.session`` has it.
    """
    canvas, most = config.canvas_length, config.max_context
    reach = config.sliding_window - 1 + (_SLACK if goes_on else 0)
    capacity, sliding = canvas + _GROWTH, reach
    if static:
        capacity, sliding = canvas + min(_FIRST, most), min(reach + _CHUNK, most)
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


def _working(config: ModelConfig, context: int, dtype: str, kind: Kind, fused: bool, work: Work) -> int:
    """The larger of a denoising step's peak and an encoder pass's. fused: as ``model.fused`` computes, with recordings,
    which keep memory of their own.
    """
    canvas, copy = config.canvas_length, 4 * config.canvas_length * config.vocab_size
    canvases = work.in_a_pass(fused)
    step, recorded = logit_copies(kind, fused, work)
    # Rows of a pass, once for each expert they go to, with what the experts make of them. The fused model takes
    # canvases one by one.
    row = config.top_k_experts * 3 * (config.hidden_size + config.moe_intermediate_size) * _ITEM_BYTES[dtype]
    routed = row * max(min(context, _CHUNK), canvas * (1 if fused else canvases))
    # On CUDA torch attends in three float32 copies of some queries' scores.
    heads = max(layer.num_heads for layer in config.layers)
    attention = 3 * 4 * heads * _QUERIES * context if kind == "cuda" and not fused else 0
    libraries = _WORKSPACE * (_STREAMS if fused else 1) if kind == "cuda" else 0
    own = int(recorded * copy) + row * canvas if fused else 0
    return max(int(step * copy), routed, attention) + own + libraries


def logit_copies(kind: Kind, fused: bool, work: Work) -> tuple[float, float]:
    """Float32 copies of a canvas's logits that are held at once, at the most: by a step of the plain loop, and by
    recorded ones, 0 where there is none.

    Of the plain loop: the logits of all its canvases, and while the probabilities of one of them are made two more. On
    the way to the soft cap torch on CUDA holds all of them twice, the fused model once and half a copy in bfloat16.
    Recorded steps keep the scores in bfloat16, in memory that they share, and the probabilities, each cache its own. On
    CUDA this is counted in torch's operations, not measured on a device. On a CPU it is measured, with what the
    libraries keep of freed memory, on a model of 262,144 tokens and next to nothing else: 2.0 to 2.6 copies for one
    canvas, 3.1 to 4.2 for two, 6.0 for four.
    """
    canvases = work.in_a_pass(fused)
    recorded = 0.5 + 0.5 * work.replies if fused and (work.canvases == 1 or work.goes_on) else 0.0
    if fused and canvases == 1 and not work.plain:
        return 0.0, recorded
    at_the_cap = {"cpu": 1.0, "cuda": 1.5 if fused else 2.0}[kind] * canvases
    return max(at_the_cap, canvases + 2.0), recorded
