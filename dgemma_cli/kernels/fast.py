"""``operations.Operations`` in Triton, for CUDA devices. Each kernel has its contract in its own file.

Plain weights of dense linear maps go to cuBLAS, as they always did.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from dgemma_cli.kernels import attention, canvas, heads, norms, router, sampler
from dgemma_cli.kernels.dense import packed_gated, packed_linear
from dgemma_cli.kernels.embedding import PackedEmbedding
from dgemma_cli.kernels.gate import gated
from dgemma_cli.kernels.grouped import routed_products
from dgemma_cli.kernels.operations import expert_matrices
from dgemma_cli.kernels.packed import PackedExperts, PackedLinear, StackedLinear
from dgemma_cli.kernels.planes import in_planes
from dgemma_cli.kernels.rows import unpacked_rows
from dgemma_cli.kernels.words import planes_of


class FastOperations:
    """See ``operations.Operations``."""

    name = "Triton"

    rms_norm = staticmethod(norms.rms_norm)
    residual_norms = staticmethod(norms.residual_norms)
    combine = staticmethod(norms.combine)
    split_heads = staticmethod(heads.split_heads)
    attend_canvas = staticmethod(attention.attend_canvas)
    attend_causal = staticmethod(attention.attend_causal)
    route = staticmethod(router.route)
    sample = staticmethod(sampler.sample)
    advance = staticmethod(canvas.advance)

    def planes(self, module: nn.Module) -> int:
        if isinstance(module, PackedLinear):
            return planes_of(module.matrix)
        if isinstance(module, PackedExperts):
            return planes_of(module.gate_up)
        if isinstance(module, StackedLinear):
            wanted = {self.planes(part) for part in module.parts}
            return wanted.pop() if len(wanted) == 1 else 1
        return 1

    def linear(self, x: Tensor, module: nn.Module) -> Tensor:
        if isinstance(module, PackedLinear):
            return packed_linear(x, module.matrix)
        if not isinstance(module, StackedLinear):
            return F.linear(x, module.weight)  # type: ignore[arg-type]
        parts = list(module.parts)
        if isinstance(parts[0], PackedLinear) and self.planes(module) > 1:
            x = in_planes(x, self.planes(module), parts[0].matrix.columns)  # once for all parts
        out = x.new_empty(len(x), sum(_rows(part) for part in parts))
        for part, columns in zip(parts, out.split([_rows(part) for part in parts], dim=1), strict=True):
            if isinstance(part, PackedLinear):
                packed_linear(x, part.matrix, out=columns)
            else:
                columns.copy_(self.linear(x, part))
        return out

    def mlp(self, x: Tensor, module: nn.Module) -> Tensor:
        gate_up, down = module.gate_up_proj, module.down_proj
        assert isinstance(gate_up, nn.Module) and isinstance(down, nn.Module)
        planes = self.planes(down)
        if isinstance(gate_up, PackedLinear):
            return self.linear(packed_gated(x, gate_up.matrix, planes), down)
        return self.linear(gated(self.linear(x, gate_up), planes), down)

    def experts(self, x: Tensor, module: nn.Module, weights: Tensor, experts: Tensor) -> Tensor:
        return routed_products(x, weights, experts, *expert_matrices(module))

    def scores(self, hidden: Tensor, embedding: nn.Module) -> Tensor:
        if isinstance(embedding, PackedEmbedding):
            return packed_linear(hidden, embedding.matrix)
        return F.linear(hidden, embedding.weight)  # type: ignore[arg-type]

    def mean(self, probabilities: Tensor, embedding: nn.Module) -> Tensor:
        if isinstance(embedding, PackedEmbedding):
            return embedding.mean(probabilities, unpacked_rows)
        return embedding.mean(probabilities)  # type: ignore[no-any-return, operator]


def _rows(module: nn.Module) -> int:
    matrix = module.matrix if isinstance(module, PackedLinear) else None
    return matrix.stack * matrix.rows if matrix is not None else module.weight.shape[0]  # type: ignore
