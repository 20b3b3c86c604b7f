"""Which uses a model's denoising step makes of the kernels that work in tiles, and how each may be cut."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from torch import nn

from dgemma_cli.kernels.cuts import Cut
from dgemma_cli.kernels.embedding import PackedEmbedding
from dgemma_cli.kernels.offload import OffloadedExperts
from dgemma_cli.kernels.operations import Matrices, expert_matrices
from dgemma_cli.kernels.packed import PackedLinear
from dgemma_cli.kernels.placing import on
from dgemma_cli.model.config import LayerConfig
from dgemma_cli.model.experts import MLP
from dgemma_cli.model.fused import FusedModel

if TYPE_CHECKING:
    from dgemma_cli.kernels.tiles import Kernel

_TRITON = "Triton"  # the operations whose kernels work in tiles


class Attention(NamedTuple):
    """Of a layer: its shape, and in how many planes what it gives is wanted."""

    shape: LayerConfig
    planes: int


@dataclass(frozen=True, slots=True)
class Use:
    """name: by which ``kernels.cuts`` knows it. cuts: the usual one first, then those that may be faster. operands: of
    each launch in a denoising step.
    """

    name: str
    kernel: Kernel | Literal["attention"]
    cuts: tuple[Cut, ...]
    operands: tuple[Matrices, ...] | tuple[Attention, ...]

    @property
    def launches(self) -> int:
        """How many there are in a denoising step."""
        return len(self.operands)


def uses_of(model: FusedModel) -> list[Use]:
    """None where torch computes. Experts in the host's memory do not count: their way here takes longer than they."""
    if model.operations.name != _TRITON:
        return []
    with on(model.device):
        return [*_products(model), *_attention(model)]


def _products(model: FusedModel) -> Iterator[Use]:
    from dgemma_cli.kernels import tiles
    from dgemma_cli.kernels.words import words_of

    config = model.config
    layers = [layer.get_submodule("experts") for layer in model.stack.layers]
    experts = [expert_matrices(layer) for layer in layers if not isinstance(layer, OffloadedExperts)]
    first: list[nn.Module] = [module.gate_up_proj for module in model.modules() if isinstance(module, MLP)]
    dense = [
        module.matrix
        for module in model.modules()
        if isinstance(module, PackedLinear | PackedEmbedding) and module not in first
    ]
    routed = tiles.tokens_in_tile("grouped", config.canvas_length * config.top_k_experts / config.num_experts)
    at_once = tiles.tokens_in_tile("dense", config.canvas_length)
    kinds: list[tuple[Kernel, list[Matrices], int]] = [
        ("gate_up", [gate_up for gate_up, _ in experts], routed),
        ("down", [down for _, down in experts], routed),
        ("dense", list(dense), at_once),
        ("gated", [module.matrix for module in first if isinstance(module, PackedLinear)], at_once),
    ]
    for kernel, matrices, tokens in kinds:
        named: dict[str, list[Matrices]] = {}
        for matrix in matrices:
            named.setdefault(tiles.use_of(kernel, words_of(matrix), tokens), []).append(matrix)
        for name, same in named.items():
            planes = words_of(same[0]).planes
            cuts = tiles.usual_tile(kernel, planes), *tiles.other_tiles(kernel, planes)
            yield Use(name, kernel, cuts, tuple(same))


def _attention(model: FusedModel) -> Iterator[Use]:
    from dgemma_cli.kernels import attention
    from dgemma_cli.kernels.launch import architecture

    tokens, card = model.config.canvas_length, architecture(model.stack.norm.weight)
    named: dict[str, list[Attention]] = {}
    for shape, layer in zip(model.config.layers, model.stack.layers, strict=True):
        planes = model.operations.planes(layer.get_submodule("self_attn.o_proj"))
        # Layers with a window look at fewer keys: of two kinds with the same heads, the first one's is measured.
        name = attention.canvas_use(tokens, shape.num_heads, shape.num_kv_heads, shape.head_dim, planes)
        named.setdefault(name, []).append(Attention(shape, planes))
    for name, same in named.items():
        shape = same[0].shape
        dim = shape.head_dim
        usual = attention.usual_cut(tokens, shape.num_heads, shape.num_kv_heads, dim, model.device, card)
        sizes = [attention.tiles_for(dim, card), *attention.other_tiles(dim, card)]
        cuts = [(*size, splits) for size in sizes for splits in attention.SPLITS]
        yield Use(name, "attention", (usual, *(cut for cut in cuts if cut != usual)), tuple(same))
