"""Every launch of a Triton kernel that the real model makes, for ``compile_kernels``: its shapes, on tensors without
memory. A variant is a function that calls the public function of a kernel's file just as the engine does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from dgemma_cli.kernels import (
    attention,
    canvas,
    dense,
    gate,
    grouped,
    grouping,
    heads,
    norms,
    planes,
    router,
    rows,
    sampler,
    tiles,
)
from dgemma_cli.kernels.cuts import Cut, trying
from dgemma_cli.kernels.fp8 import FP8
from dgemma_cli.kernels.int4 import Int4
from dgemma_cli.kernels.int8 import Int8
from dgemma_cli.kernels.nvfp4 import NVFP4
from dgemma_cli.kernels.words import Matrices, Words, planes_of, words_of

Variant = Callable[[], object]
VARIANTS: dict[str, Variant] = {}

CANVAS, CHUNK = 256, 1024  # tokens in a denoising step, and at most in an encoder pass
HIDDEN, DENSE, EXPERTS, TOP_K, INNER = 2816, 2112, 128, 8, 704
HEADS, SLIDING, FULL, WINDOW = 16, (8, 256), (2, 512), 1024  # key heads and size of a head, by kind of layer
CAPACITY, EPS, VOCAB, CAP = 8192, 1e-6, 262_144, 30.0


def variant(name: str) -> Callable[[Variant], Variant]:
    """Register a function under ``name``: what it launches is compiled."""

    def register(launches: Variant) -> Variant:
        if name in VARIANTS:
            raise ValueError(f"two variants are called {name}")
        VARIANTS[name] = launches
        return launches

    return register


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """A tensor that has a shape only."""
    return torch.empty(shape, dtype=dtype, device="meta")


def laid_out(tokens: int, planes: int) -> Tensor:
    """What a product reads that way."""
    return empty(tokens, HIDDEN) if planes == 1 else empty(tokens, planes, HIDDEN // planes)


def matrices(form: str, count: int, stack: int, rows: int, columns: int) -> Matrices:
    """Weights of a format, without memory."""
    with torch.device("meta"):
        match form:
            case "nvfp4":
                return NVFP4(count, stack, rows, columns, divides=False, scale_shape=())
            case "int4":
                return Int4(count, stack, rows, columns, torch.float16)
            case "int8":
                return Int8(count, stack, rows, columns, torch.float16)
            case "fp8":
                return FP8(count, stack, rows, columns)
    return empty(count, stack * rows, columns)


def _register() -> None:
    for tokens in (CANVAS, CHUNK):
        _grouping(tokens)
        for form in ("nvfp4", "int4", "fp8", "bf16"):
            _grouped(form, tokens)
    for tokens in (1, CANVAS):
        for form in ("nvfp4", "int4", "int8", "fp8"):
            _dense(form, tokens)
    for count in (2, 4):
        _planes(count)
    for tokens in (300, 333):
        _prompt(tokens)


def _grouping(tokens: int) -> None:
    @variant(f"group_by_expert {tokens}")
    def launches() -> None:
        grouping.group_by_expert(empty(tokens, TOP_K, dtype=torch.int32), EXPERTS)


def _planes(count: int) -> None:
    @variant(f"to_planes {count}")
    def launches() -> None:
        planes.to_planes(empty(CANVAS, HIDDEN), count)


def _grouped(form: str, tokens: int) -> None:
    gate_up, down = matrices(form, EXPERTS, 2, INNER, HIDDEN), matrices(form, EXPERTS, 1, HIDDEN, INNER)

    @variant(f"grouped {form} {tokens}")
    def launches() -> None:
        groups = grouping.group_by_expert(empty(tokens, TOP_K, dtype=torch.int32), EXPERTS)
        x, weights = laid_out(tokens, planes_of(gate_up)), empty(tokens, TOP_K, dtype=torch.float32)
        inner = grouped.grouped_gate_up(x, gate_up, groups, planes_of(down))
        grouped.grouped_down(inner, down, groups, weights)


def _dense(form: str, tokens: int) -> None:
    matrix = matrices(form, 1, 1, 4096, HIDDEN)

    @variant(f"packed_linear {form} {tokens}")
    def launches() -> None:
        dense.packed_linear(laid_out(tokens, planes_of(matrix)), matrix)

    gate_up = matrices(form, 1, 1, 2 * DENSE, HIDDEN)

    @variant(f"packed_gated {form} {tokens}")
    def gated() -> None:
        dense.packed_gated(laid_out(tokens, planes_of(gate_up)), gate_up, planes_of(gate_up))


def _prompt(tokens: int) -> None:
    """What an encoder pass launches that is not as long as a canvas: for every length the same kernels."""
    gate_up, down = matrices("nvfp4", EXPERTS, 2, INNER, HIDDEN), matrices("nvfp4", EXPERTS, 1, HIDDEN, INNER)

    @variant(f"prompt {tokens}")
    def launches() -> None:
        x, weight, start = empty(tokens, HIDDEN), empty(HIDDEN), empty(1, dtype=torch.int32)
        normed = norms.rms_norm(x, weight, EPS, 2)
        for (kv_heads, dim), window in ((SLIDING, WINDOW), (FULL, None)):
            rows = HEADS + (2 if dim == SLIDING[1] else 1) * kv_heads
            cache, turn = empty(kv_heads, CAPACITY, dim), empty(tokens, dim // 2, dtype=torch.float32)
            qkv = dense.packed_linear(normed, matrices("int8", 1, 1, rows * dim, HIDDEN))
            norm = empty(dim)
            q = heads.split_heads(qkv, HEADS, kv_heads, norm, norm, turn, turn, cache, cache, start, EPS)
            attention.attend_causal(q, cache, cache, start, window, 2, splits=2)
        of_router = empty(HIDDEN, dtype=torch.float32)
        x, _, read, _ = norms.residual_norms(x, x, weight, weight, weight, of_router, EPS, 2, 4)
        dense.packed_gated(normed, matrices("int8", 1, 1, 2 * DENSE, HIDDEN), 2)
        shares, experts = router.route(empty(tokens, EXPERTS), TOP_K, empty(EXPERTS))
        routed = grouped.routed_products(read, shares, experts, gate_up, down)
        norms.combine(x, x, routed, weight, weight, weight, empty(1), weight, EPS, 2)


_register()


@variant("norms")
def _norms() -> None:
    x, weight = empty(CANVAS, HIDDEN), empty(HIDDEN)
    of_router = empty(HIDDEN, dtype=torch.float32)
    norms.rms_norm(x, None, EPS)
    for dense_planes, routed_planes in ((1, 4), (2, 2), (2, 4)):
        norms.residual_norms(x, x, weight, weight, weight, of_router, EPS, dense_planes, routed_planes)
    for count in (1, 2, 4):
        norms.rms_norm(x, weight, EPS, count)
        norms.combine(x, x, empty(CANVAS, TOP_K, HIDDEN), weight, weight, weight, empty(1), weight, EPS, count)


@variant("gate")
def _gate() -> None:
    for count in (1, 2, 4):
        gate.gated(empty(CANVAS, 2 * DENSE), count)


@variant("router")
def _router() -> None:
    router.route(empty(CANVAS, EXPERTS), TOP_K, empty(EXPERTS))


@variant("heads")
def _heads() -> None:
    start = empty(1, dtype=torch.int32)
    for kv_heads, dim in (SLIDING, FULL):
        rows = HEADS + (2 if dim == SLIDING[1] else 1) * kv_heads
        cache, turn = empty(kv_heads, CAPACITY, dim), empty(CANVAS, dim // 2, dtype=torch.float32)
        qkv, weight = empty(CANVAS, rows * dim), empty(dim)
        heads.split_heads(qkv, HEADS, kv_heads, weight, weight, turn, turn, cache, cache, start, EPS)


for _name, (_kv_heads, _dim) in (("sliding", SLIDING), ("full", FULL)):
    for _splits in (1, 4):

        @variant(f"attention {_name} {'whole' if _splits == 1 else 'split'}")
        def _attention(kv_heads: int = _kv_heads, dim: int = _dim, splits: int = _splits) -> None:
            start, q, cache = empty(1, dtype=torch.int32), empty(CANVAS, HEADS, dim), empty(kv_heads, CAPACITY, dim)
            window = WINDOW if dim == SLIDING[1] else None
            for count in (1, 2, 4) if splits > 1 else (1,):
                attention.attend_canvas(q, cache, cache, start, start, count, splits=splits)
                attention.attend_causal(q, cache, cache, start, window, count, splits=splits)


@variant("sampler")
def _sampler() -> None:
    temperature, uniform = empty(1, dtype=torch.float32), empty(CANVAS, dtype=torch.float32)
    sampler.sample(empty(CANVAS, VOCAB), CAP, temperature, uniform)


@variant("rows")
def _rows() -> None:
    with torch.device("meta"):
        embedding = Int8(1, 1, VOCAB, HIDDEN, torch.float16)
    rows.unpacked_rows(embedding, slice(4096, 8192))


@variant("canvas")
def _canvas() -> None:
    numbers, eos, ids = (empty(size, dtype=torch.int64) for size in (6, 3, CANVAS))
    canvas.advance(numbers, eos, ids, ids, ids, empty(CANVAS, dtype=torch.float32), ids, ids, ids)


def in_other_tiles(target: int) -> dict[str, Variant]:
    """The products and the attention of a canvas in each of the tiles that are measured beside the usual one, for the
    current GPU, of compute capability ``target``.
    """
    found: dict[str, Variant] = {}
    for name, (kernel, words, tokens), run in _products():
        for other in tiles.other_tiles(kernel, words.planes):
            found[f"{name} {tuple(other)}"] = _trying(tiles.use_of(kernel, words, tokens), other, run)
    for name, (kv_heads, dim) in (("sliding", SLIDING), ("full", FULL)):
        use = attention.canvas_use(CANVAS, HEADS, kv_heads, dim, 1)
        for sizes in attention.other_tiles(dim, target):
            for splits in (1, 4):
                found[f"attention {name} {tuple(sizes)} in {splits}"] = _trying(
                    use, (*sizes, splits), partial(_canvas_attention, kv_heads, dim)
                )
    return found


def _trying(use: str, cut: Cut, run: Variant) -> Variant:
    def launches() -> None:
        with trying(use, cut):
            run()

    return launches


def _products() -> Iterator[tuple[str, tuple[tiles.Kernel, Words, int], Variant]]:
    """Of each format in which the weights have another number of planes."""
    for form in ("nvfp4", "fp8", "bf16"):
        gate_up, down = matrices(form, EXPERTS, 2, INNER, HIDDEN), matrices(form, EXPERTS, 1, HIDDEN, INNER)
        tokens = tiles.tokens_in_tile("grouped", CANVAS * TOP_K / EXPERTS)
        yield f"gate_up {form}", ("gate_up", words_of(gate_up), tokens), partial(_gate_up, gate_up)
        yield f"down {form}", ("down", words_of(down), tokens), partial(_down, down)
    for form in ("nvfp4", "int8"):
        matrix, tokens = matrices(form, 1, 1, 4096, HIDDEN), tiles.tokens_in_tile("dense", CANVAS)
        linear = partial(dense.packed_linear, laid_out(CANVAS, planes_of(matrix)), matrix)
        yield f"dense {form}", ("dense", words_of(matrix), tokens), linear
        pair = matrices(form, 1, 1, 2 * DENSE, HIDDEN)
        gated = partial(dense.packed_gated, laid_out(CANVAS, planes_of(pair)), pair, planes_of(pair))
        yield f"gated {form}", ("gated", words_of(pair), tokens), gated


def _gate_up(matrix: Matrices) -> None:
    groups = grouping.group_by_expert(empty(CANVAS, TOP_K, dtype=torch.int32), EXPERTS)
    grouped.grouped_gate_up(laid_out(CANVAS, planes_of(matrix)), matrix, groups, planes_of(matrix))


def _down(matrix: Matrices) -> None:
    groups = grouping.group_by_expert(empty(CANVAS, TOP_K, dtype=torch.int32), EXPERTS)
    count = planes_of(matrix)
    inner = empty(CANVAS * TOP_K, INNER) if count == 1 else empty(CANVAS * TOP_K, count, INNER // count)
    weights = empty(CANVAS, TOP_K, dtype=torch.float32)
    grouped.grouped_down(inner, matrix, groups, weights)


def _canvas_attention(kv_heads: int, dim: int) -> None:
    start, q, cache = empty(1, dtype=torch.int32), empty(CANVAS, HEADS, dim), empty(kv_heads, CAPACITY, dim)
    attention.attend_canvas(q, cache, cache, start, start)
