"""What the embedded model is trained for: next tokens in the encoder, clean canvases in the decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from nano_batches import Batch
from torch import Tensor

from dgemma_cli.kernels.reference import gated
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.model.experts import Experts
from dgemma_cli.model.model import Model

PADDING_WEIGHT = 0.25  # behind the end of turn a canvas is padding: to be learnt, but soon known
T_MIN, T_MAX = 0.4, 0.8  # the sampler's temperatures, at no noise and at full noise


def attention_weights(scores: Tensor, visible: Tensor) -> Tensor:
    """softmax over the visible keys, in float32; the result has the dtype of ``scores``."""
    return scores.float().masked_fill(~visible, -1e9).softmax(dim=-1).to(scores.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
    """Attention as in the package's cache, written out: for short rows its gradient is several times faster on a CPU
    than that of the fused kernel. visible: bool, broadcast against [B, kv_heads, group * T, S].
    """
    folded = q.reshape(q.shape[0], k.shape[1], -1, q.shape[-1])  # queries of a group are more queries of one head
    return (attention_weights(folded @ k.mT, visible) @ v).reshape(q.shape)


class TrainingMemory:
    """Keys and values of a batch of texts, with their gradients; row b's canvas sees the first starts[b] of them."""

    def __init__(self, config: ModelConfig, length: int, starts: Tensor, canvas: int) -> None:
        self.layers = config.layers
        self.kept: list[tuple[Tensor, Tensor] | None] = [None] * len(config.layers)
        window = config.sliding_window
        place = torch.arange(length, device=starts.device)
        distance = place[:, None] - place[None]
        self.causal = {False: distance >= 0, True: (distance >= 0) & (distance < window)}  # [T, T]
        past = place[None] < starts[:, None]  # [B, T]
        near = past & (place[None] > starts[:, None] - window)
        whole = torch.ones(len(starts), canvas, dtype=torch.bool, device=starts.device)
        self.seen = {
            False: torch.cat((past, whole), dim=1)[:, None, None],  # [B, 1, 1, T + C]
            True: torch.cat((near, whole), dim=1)[:, None, None],
        }

    def encode(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.kept[layer] = (k, v)
        return attend(q, k, v, self.causal[self.layers[layer].sliding].repeat(q.shape[1] // k.shape[1], 1))

    def denoise(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        kept = self.kept[layer]
        assert kept is not None, "the encoder runs first"
        keys, values = torch.cat((kept[0], k), dim=2), torch.cat((kept[1], v), dim=2)
        return attend(q, keys, values, self.seen[self.layers[layer].sliding])

    def first(self, rows: int) -> TrainingMemory:
        """The memory of the first rows alone, without gradients."""
        part = object.__new__(TrainingMemory)
        part.layers, part.causal = self.layers, self.causal
        part.kept = [(kept[0][:rows].detach(), kept[1][:rows].detach()) for kept in self.kept if kept is not None]
        part.seen = {sliding: mask[:rows] for sliding, mask in self.seen.items()}
        return part


class DenseExperts(Experts):
    """Every expert over every token, as one wide layer whose unchosen parts count zero: the same function, and
    for a handful of small experts much faster than sorting tokens by expert.
    """

    def forward(self, x: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
        count, double, hidden = self.gate_up_proj.shape
        inner = double // 2
        gate_up = F.linear(x, self.gate_up_proj.reshape(count * double, hidden)).view(-1, count, double)
        share = torch.zeros(x.shape[0], count, dtype=weights.dtype, device=x.device)
        share = share.scatter(1, experts, weights).to(x.dtype)
        active = gated(gate_up) * share[..., None]
        down = self.down_proj.transpose(1, 2).reshape(count * inner, hidden)
        return active.view(-1, count * inner) @ down


def use_dense_experts(model: Model) -> None:
    """Let the model's experts run as DenseExperts; parameters stay as they are."""
    for layer in model.stack.layers:
        layer.experts.__class__ = DenseExperts


def noised(target: Tensor, vocabulary: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Replace each token by a uniform one with the row's own probability t. Returns canvas and t [B, 1].

    t is the larger of two draws from U(0, 1): what a small model finds hard is the first look at a canvas of noise.
    """
    share = torch.rand(2, target.shape[0], 1, generator=generator).amax(dim=0)
    hit = torch.rand(target.shape, generator=generator) < share
    noise = torch.randint(vocabulary, target.shape, generator=generator)
    return torch.where(hit, noise, target), share


def losses(model: Model, batch: Batch, canvas: Tensor, share: Tensor, pad: int) -> tuple[Tensor, Tensor]:
    """Encoder and decoder loss (nats a token). canvas, share: of ``noised``.

    The first half of the rows is conditioned on a first pass without gradients, tempered as the sampler would be
    at that much noise; the other half on zeros.
    """
    length = batch.text.shape[1]
    memory = TrainingMemory(model.config, length, batch.starts, canvas.shape[1])
    positions = torch.arange(length, device=canvas.device)[None].expand_as(batch.text)
    encoded = model.run_encoder(batch.text, positions, memory)
    places = torch.arange(1, length, device=canvas.device)[None]
    # The random words of a prompt cannot be foretold, so the encoder learns to go on with the reply alone.
    replies = (places >= batch.prompts[:, None]) & (places < batch.lengths[:, None])
    encoder = _cross_entropy(model.head(encoded[:, :-1][replies]), batch.text[:, 1:][replies], None)

    positions = batch.starts[:, None] + torch.arange(canvas.shape[1], device=canvas.device)
    half = len(canvas) // 2
    with torch.no_grad():
        hidden = model.run_decoder(canvas[:half], None, positions[:half], memory.first(half))
        temperature = T_MIN + (T_MAX - T_MIN) * share[:half, :, None]
        soft = model.expected_embedding((model.head(hidden) / temperature).softmax(dim=-1))
        soft = torch.cat((soft, soft.new_zeros(len(canvas) - half, *soft.shape[1:])))
    hidden = model.run_decoder(canvas, soft, positions, memory)
    weight = torch.where(batch.target == pad, PADDING_WEIGHT, 1.0)
    return encoder, _cross_entropy(model.head(hidden).flatten(0, 1), batch.target.flatten(), weight.flatten())


def _cross_entropy(logits: Tensor, target: Tensor, weight: Tensor | None) -> Tensor:
    each = F.cross_entropy(logits, target, reduction="none")
    return each.mean() if weight is None else (each * weight).sum() / weight.sum()
