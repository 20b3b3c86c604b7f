"""Random DiffusionGemma checkpoints made by transformers, and its own answers on them: what ours are compared with."""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import transformers
from torch import Tensor

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

VISION = {
    "model_type": "gemma4_vision",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 16,
    "patch_size": 4,
    "position_embedding_size": 16,
}


def new_cache(network: transformers.DiffusionGemmaForBlockDiffusion) -> dict[str, transformers.DynamicCache]:
    """An empty cache, as the argument that the network and its encoder take it by: it was renamed in version 5.24."""
    name = "cache" if "cache" in inspect.signature(network.forward).parameters else "past_key_values"
    return {name: transformers.DynamicCache(config=network.config.get_text_config(decoder=True))}


@dataclass(frozen=True)
class Shape:
    """A small configuration, in our words."""

    layers: str = "ssf"  # s: sliding, f: full
    hidden: int = 64
    heads: int = 4
    kv_heads: int = 2
    full_kv_heads: int = 1
    head_dim: int = 16
    full_head_dim: int = 32
    intermediate: int = 48
    moe: int = 32
    experts: int = 8
    top_k: int = 2
    window: int = 16
    canvas: int = 16
    vocab: int = 211
    zero_padded_keys: bool = True
    sharpness: float = 1.0  # of the tied head: with large ones a canvas settles before the cap
    seed: int = 0

    def but(self, **changes: object) -> Shape:
        return replace(self, **changes)  # type: ignore[arg-type]


def config(shape: Shape) -> transformers.DiffusionGemmaConfig:
    kinds = {"s": "sliding_attention", "f": "full_attention"}
    text = {
        "vocab_size": shape.vocab,
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "moe_intermediate_size": shape.moe,
        "num_hidden_layers": len(shape.layers),
        "layer_types": [kinds[letter] for letter in shape.layers],
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_dim,
        "global_head_dim": shape.full_head_dim,
        "num_global_key_value_heads": shape.full_kv_heads,
        "num_experts": shape.experts,
        "top_k_experts": shape.top_k,
        "sliding_window": shape.window,
        "max_position_embeddings": 4096,
        "use_bidirectional_attention": "vision",
    }
    return transformers.DiffusionGemmaConfig(
        text_config=text, vision_config=VISION, canvas_length=shape.canvas, image_token_id=shape.vocab + 1
    )


def network(shape: Shape) -> transformers.DiffusionGemmaForBlockDiffusion:
    """A float32 network with random weights on which a comparison means something: no norm is all ones, encoder and
    decoder scalars differ, and the head norms are near head_dim^-0.25, since attention has no 1/sqrt(d).
    """
    generator = torch.Generator().manual_seed(shape.seed)
    model = transformers.DiffusionGemmaForBlockDiffusion(config(shape)).eval()

    def near(size: torch.Size, center: float, spread: float) -> Tensor:
        return center * (1 + spread * torch.randn(size, generator=generator))

    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if "vision" in name or name.endswith(("inv_freq", "embed_scale")):
                continue
            if name.endswith(("q_norm.weight", "k_norm.weight")):
                tensor.copy_(near(tensor.shape, tensor.shape[0] ** -0.25, 0.1))
            elif name.endswith(("norm.weight", "_1.weight", "_2.weight", "scale", "layer_scalar")):
                tensor.copy_(near(tensor.shape, 1.0, 0.2))
            elif "embed_tokens" in name or "lm_head" in name:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * shape.sharpness * shape.hidden**-0.5)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * tensor.shape[-1] ** -0.5)
    model.tie_weights()
    model.set_experts_implementation("eager")
    return model


def save(model: transformers.DiffusionGemmaForBlockDiffusion, shape: Shape, folder: Path) -> Path:
    """Write the checkpoint as transformers does, or with the released spelling of the full layers' sizes."""
    model.save_pretrained(folder)
    if not shape.zero_padded_keys:
        file = folder / "config.json"
        parsed = json.loads(file.read_text())
        del parsed["text_config"]["per_layer_config"]
        parsed["text_config"]["global_head_dim"] = shape.full_head_dim
        parsed["text_config"]["num_global_key_value_heads"] = shape.full_kv_heads
        file.write_text(json.dumps(parsed))
    return folder


def no_eos(defaults: object) -> object:
    """The same sampler settings with an EOS that never comes."""
    return replace(defaults, eos_ids=frozenset())  # type: ignore[type-var]


def reload_in_float64(folder: Path) -> transformers.DiffusionGemmaForBlockDiffusion:
    """The checkpoint of ``folder`` as transformers loads it, computed in float64."""
    loaded = transformers.DiffusionGemmaForBlockDiffusion.from_pretrained(folder, dtype=torch.float64)
    loaded.set_experts_implementation("eager")
    return loaded.eval()
