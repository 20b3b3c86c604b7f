"""Self-attention of one layer: projections, head norms and rotary angles; who looks at whom is the memory's matter."""

from __future__ import annotations

from typing import Literal, TypeAlias

from torch import Tensor, nn

from dgemma_cli.model.cache import Memory
from dgemma_cli.model.config import LayerConfig, ModelConfig
from dgemma_cli.model.norm import RMSNorm, rms_norm
from dgemma_cli.model.rotary import rotate

Pass: TypeAlias = Literal["encode", "denoise"]


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

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, memory: Memory, run: Pass) -> Tensor:
        """x: [B, T, hidden], already normed; cos, sin: this layer's angles. Returns [B, T, hidden]."""
        batch, length, _ = x.shape
        heads, kv_heads, dim = self.shape.num_heads, self.shape.num_kv_heads, self.shape.head_dim
        projected = self.qkv_proj(x).view(batch, length, -1, dim)
        q, k = projected[:, :, :heads], projected[:, :, heads : heads + kv_heads]
        # Full layers have no v_proj: their values are the keys as projected, before norm and rotation.
        v = projected[:, :, heads + kv_heads :] if self.shape.sliding else k
        q = rotate(self.q_norm(q).transpose(1, 2), cos, sin)  # [B, heads, T, d]
        k = rotate(self.k_norm(k).transpose(1, 2), cos, sin)
        v = rms_norm(v, None, self.eps).transpose(1, 2)
        attended = memory.encode(self.index, q, k, v) if run == "encode" else memory.denoise(self.index, q, k, v)
        return self.o_proj(attended.transpose(1, 2).reshape(batch, length, heads * dim))  # type: ignore[no-any-return]
