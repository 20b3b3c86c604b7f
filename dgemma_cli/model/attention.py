"""What surrounds attention in a layer: projections, head norms and rotary angles. Who looks at whom is the memory's
matter.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn

from dgemma_cli.model.cache import Memory
from dgemma_cli.model.config import LayerConfig, ModelConfig
from dgemma_cli.model.norm import RMSNorm, rms_norm
from dgemma_cli.model.rotary import rotate

Pass: TypeAlias = Literal["encode", "denoise"]
Heads: TypeAlias = tuple[Tensor, Tensor, Tensor]  # queries [B, heads, T, d], keys and values [B, kv_heads, T, d]


class Attention(nn.Module):
    """``qkv_proj`` stacks the rows of q_proj, k_proj and, on sliding layers, v_proj."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, index: int) -> None:
        super().__init__()
        self.shape = layer
        self.index = index
        self.eps = config.rms_norm_eps
        kinds_of_kv = 2 if layer.sliding else 1
        rows = (layer.num_heads + kinds_of_kv * layer.num_kv_heads) * layer.head_dim
        self.qkv_proj = nn.Linear(config.hidden_size, rows, bias=False)
        self.o_proj = nn.Linear(layer.num_heads * layer.head_dim, config.hidden_size, bias=False)
        self.q_norm = RMSNorm(layer.head_dim, self.eps)
        self.k_norm = RMSNorm(layer.head_dim, self.eps)

    def project(self, x: Tensor, cos: Tensor, sin: Tensor) -> Heads:
        """x: [B, T, hidden], already normed; cos, sin: this layer's angles."""
        batch, length, _ = x.shape
        heads, kv_heads, dim = self.shape.num_heads, self.shape.num_kv_heads, self.shape.head_dim
        projected = self.qkv_proj(x).view(batch, length, -1, dim)
        q, k = projected[:, :, :heads], projected[:, :, heads : heads + kv_heads]
        # Full layers have no v_proj: their values are the keys as projected, before norm and rotation.
        v = projected[:, :, heads + kv_heads :] if self.shape.sliding else k
        q, k = rotate(self.q_norm(q), cos, sin), rotate(self.k_norm(k), cos, sin)
        v = rms_norm(v, None, self.eps)
        return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)

    def forward(self, heads: Heads, memory: Memory, run: Pass) -> Tensor:
        """What the queries find in the memory: [B, heads, T, d]."""
        return memory.encode(self.index, *heads) if run == "encode" else memory.denoise(self.index, *heads)

    def output(self, attended: Tensor) -> Tensor:
        """attended: [B, heads, T, d]. Returns [B, T, hidden]."""
        return self.o_proj(attended.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]
