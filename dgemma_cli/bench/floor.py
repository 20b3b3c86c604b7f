"""The least a denoising step can take: what it must multiply or move, over the rate at which this device does that.

On a CPU a canvas keeps the arithmetic busy: the floor is the step's multiply-adds at the rate of a matrix product. On a
GPU reading the weights takes longer: the floor is the bytes a step must read at the bandwidth of a large copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from dgemma_cli.bench.runner import Sample
from dgemma_cli.model.config import LayerConfig, ModelConfig

Kind: TypeAlias = Literal["compute", "memory"]


@dataclass(frozen=True, slots=True)
class Resident:
    """Bytes of the weights as they lie in memory."""

    experts: int
    embedding: int
    rest: int


@dataclass(frozen=True, slots=True)
class Device:
    """What this device was measured to do in this run. rate: multiply-adds, or bytes, a second. experts: distinct ones
    that a layer uses in a step, on average; None where it could not be counted (all of them are then assumed).
    """

    kind: Kind
    rate: float
    resident: Resident | None
    experts: float | None
    item_bytes: int


@dataclass(frozen=True, slots=True)
class Floor:
    """work: multiply-adds, or bytes, of an average step; seconds: what it takes at the measured rate."""

    kind: Kind
    work: float
    seconds: float


def floor(config: ModelConfig, device: Device, samples: Sequence[Sample]) -> Floor:
    """The floor of the steps that these samples took, on average."""
    counts = [sample.statistics for sample in samples]
    steps, blocks = sum(count.steps for count in counts), sum(count.blocks for count in counts)
    # The first step of a block has no draft to be conditioned on, and nothing is made of the last one's.
    conditioned = (steps - blocks) / steps
    work = 0.0
    for count in counts:
        # Behind the prompt and, on average, half of the blocks that came before.
        context = count.prompt_tokens + config.canvas_length * (count.blocks - 1) // 2
        if device.kind == "compute":
            work += count.steps * multiply_adds(config, context, conditioned)
        else:
            work += count.steps * step_bytes(config, device, context, conditioned)
    work /= steps
    return Floor(device.kind, work, work / device.rate)


def multiply_adds(config: ModelConfig, context: int, conditioned: float = 1.0) -> float:
    """Of one denoising step behind ``context`` tokens; matrix products alone, everything else being small.

    conditioned: the share of steps that have a soft embedding made for them and mixed in.
    """
    hidden = config.hidden_size
    a_position = float(config.vocab_size * hidden)  # the head
    a_position += conditioned * (config.vocab_size * hidden + 3 * hidden * config.intermediate_size)
    for layer in config.layers:
        projections = layer.num_heads * 2 + layer.num_kv_heads * (2 if layer.sliding else 1)  # q and o; k and v
        a_position += projections * layer.head_dim * hidden
        a_position += 2 * layer.num_heads * layer.head_dim * _keys(config, layer, context)
        a_position += 3 * hidden * config.intermediate_size
        a_position += hidden * config.num_experts
        a_position += config.top_k_experts * 3 * hidden * config.moe_intermediate_size
    return a_position * config.canvas_length


def step_bytes(config: ModelConfig, device: Device, context: int, conditioned: float = 1.0) -> float:
    """What one denoising step must read behind ``context`` tokens: each weight once, of the experts those that are
    used; the embedding as the head and once more for the soft embedding, which needs all logits first; the KV cache.
    What activations take is left out.
    """
    if device.resident is None:
        raise ValueError("the weights were not weighed")
    resident = device.resident
    used = 1.0 if device.experts is None else device.experts / config.num_experts
    cache = sum(
        2 * layer.num_kv_heads * layer.head_dim * _keys(config, layer, context) * device.item_bytes
        for layer in config.layers
    )
    return resident.rest + resident.experts * used + resident.embedding * (1 + conditioned) + cache


def _keys(config: ModelConfig, layer: LayerConfig, context: int) -> int:
    """How many positions a canvas looks at."""
    seen = min(context, config.sliding_window - 1) if layer.sliding else context
    return seen + config.canvas_length
