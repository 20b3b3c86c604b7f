"""Names and shapes of the published checkpoints, and where each tensor goes in the model. Imports no torch.

The stack is stored once, under ``model.decoder``; the head is tied to the embedding; the encoder adds only its own
layer scalars and the vision tower. Several tensors share one fused parameter of the model: each fills some of its rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dgemma_cli.model.config import LayerConfig, ModelConfig

# What a checkpoint may hold that a text model does not use. Nothing else may be left over.
VISION_PREFIXES = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
# Some savers write the tied head out as well; it must then equal the embedding.
TIED_HEAD = "lm_head.weight"
EMBEDDING = "model.decoder.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Slot:
    """One tensor of the checkpoint: its name and shape there, and the rows of the parameter that it fills."""

    tensor: str
    shape: tuple[int, ...]
    parameter: str
    first_row: int = 0


def slots(config: ModelConfig) -> Iterator[Slot]:
    """Every tensor of a plain checkpoint of this configuration, in the order of the stack."""
    hidden = config.hidden_size
    yield Slot(EMBEDDING, (config.vocab_size, hidden), "embed_tokens.weight")
    theirs, ours = "model.decoder.self_conditioning.", "self_conditioning."
    yield Slot(f"{theirs}pre_norm.weight", (hidden,), f"{ours}pre_norm.weight")
    yield from _mlp(theirs, f"{ours}mlp.", hidden, config.intermediate_size)
    for index, layer in enumerate(config.layers):
        yield from _layer(config, layer, index)
    yield Slot("model.decoder.norm.weight", (hidden,), "stack.norm.weight")


def _mlp(theirs: str, ours: str, hidden: int, inner: int) -> Iterator[Slot]:
    yield Slot(f"{theirs}gate_proj.weight", (inner, hidden), f"{ours}gate_up_proj.weight")
    yield Slot(f"{theirs}up_proj.weight", (inner, hidden), f"{ours}gate_up_proj.weight", first_row=inner)
    yield Slot(f"{theirs}down_proj.weight", (hidden, inner), f"{ours}down_proj.weight")


def _layer(config: ModelConfig, layer: LayerConfig, index: int) -> Iterator[Slot]:
    hidden, inner, experts = config.hidden_size, config.moe_intermediate_size, config.num_experts
    theirs, ours = f"model.decoder.layers.{index}.", f"stack.layers.{index}."
    q_rows, kv_rows = layer.num_heads * layer.head_dim, layer.num_kv_heads * layer.head_dim
    stacked = f"{ours}self_attn.qkv_proj.weight"
    yield Slot(f"{theirs}self_attn.q_proj.weight", (q_rows, hidden), stacked)
    yield Slot(f"{theirs}self_attn.k_proj.weight", (kv_rows, hidden), stacked, first_row=q_rows)
    if layer.sliding:
        yield Slot(f"{theirs}self_attn.v_proj.weight", (kv_rows, hidden), stacked, first_row=q_rows + kv_rows)
    yield Slot(f"{theirs}self_attn.o_proj.weight", (hidden, q_rows), f"{ours}self_attn.o_proj.weight")
    yield from _mlp(f"{theirs}mlp.", f"{ours}mlp.", hidden, config.intermediate_size)
    same = {
        "self_attn.q_norm.weight": (layer.head_dim,),
        "self_attn.k_norm.weight": (layer.head_dim,),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
        "pre_feedforward_layernorm.weight": (hidden,),
        "pre_feedforward_layernorm_2.weight": (hidden,),
        "post_feedforward_layernorm_1.weight": (hidden,),
        "post_feedforward_layernorm_2.weight": (hidden,),
        "post_feedforward_layernorm.weight": (hidden,),
        "router.proj.weight": (experts, hidden),
        "router.scale": (hidden,),
        "router.per_expert_scale": (experts,),
        "experts.gate_up_proj": (experts, 2 * inner, hidden),
        "experts.down_proj": (experts, hidden, inner),
    }
    for name, shape in same.items():
        yield Slot(theirs + name, shape, ours + name)
    yield Slot(f"{theirs}layer_scalar", (1,), f"{ours}decoder_scalar")
    yield Slot(f"model.encoder.language_model.layers.{index}.layer_scalar", (1,), f"{ours}encoder_scalar")
