"""transformers' network on the weights of one of our models, without a second copy of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import DiffusionGemmaConfig, DiffusionGemmaForBlockDiffusion
from transformers.models.diffusion_gemma import generation_diffusion_gemma as reference

from dgemma_cli.model.config import ModelConfig
from dgemma_cli.model.model import Model
from dgemma_cli.weights.layout import make_plan
from dgemma_cli.weights.scheme import Scheme

_VISION = {"model_type": "gemma4_vision", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
_VISION |= {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 16}
_VISION |= {"patch_size": 4, "position_embedding_size": 16}


def borrowed(model: Model) -> DiffusionGemmaForBlockDiffusion:
    """A network whose parameters are those of ``model``, which holds plain weights: views of the same memory."""
    config = model.config
    with torch.device("meta"):
        network = DiffusionGemmaForBlockDiffusion(_config(config)).to(model.dtype).eval()  # type: ignore[arg-type]
    places: dict[str, Tensor] = dict(model.named_parameters())
    weights: dict[str, Tensor] = {}
    for slot in make_plan(config, Scheme(), lambda _: None).slots:
        if not slot.target:
            continue
        place = places[slot.target][slot.place]
        if place.shape != slot.shape:
            place = place[slot.first_row : slot.first_row + slot.shape[0]]
        weights[slot.tensor] = place
    decoder, encoder = "model.decoder.", "model.encoder.language_model."
    shared = {encoder + name.removeprefix(decoder): w for name, w in weights.items() if name.startswith(decoder)}
    known = {name for name, _ in [*network.named_parameters(remove_duplicate=False), *network.named_buffers()]}
    every = {name: weight for name, weight in (shared | weights).items() if name in known}
    network.load_state_dict(
        every | {"lm_head.weight": weights[f"{decoder}embed_tokens.weight"]}, strict=False, assign=True
    )
    for part in (network.model.decoder, network.model.encoder.language_model):
        part.rotary_emb = type(part.rotary_emb)(network.config.text_config).to(model.device)
        part.embed_tokens.embed_scale = torch.tensor(config.hidden_size**0.5, dtype=model.dtype, device=model.device)
    for name, tensor in [*network.named_parameters(remove_duplicate=False), *network.named_buffers()]:
        if tensor.is_meta and "vision" not in name:
            raise AssertionError(f"{name} has no value")
    return network  # type: ignore[no-any-return]


def generation(config: ModelConfig, steps: int, compiled: bool) -> Any:
    """One canvas of exactly so many steps."""
    return reference.DiffusionGemmaGenerationConfig(
        max_new_tokens=config.canvas_length,
        max_denoising_steps=steps,
        sampler_config=reference.EntropyBoundSamplerConfig(entropy_bound=0.1),
        stability_threshold=10_000,
        eos_token_id=[config.vocab_size + 5],
        **({"cache_implementation": "static"} if compiled else {}),
    )


def _config(config: ModelConfig) -> DiffusionGemmaConfig:
    sliding, full = (next(layer for layer in config.layers if layer.sliding is kind) for kind in (True, False))
    text = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "moe_intermediate_size": config.moe_intermediate_size,
        "num_hidden_layers": len(config.layers),
        "layer_types": ["sliding_attention" if layer.sliding else "full_attention" for layer in config.layers],
        "num_attention_heads": sliding.num_heads,
        "num_key_value_heads": sliding.num_kv_heads,
        "head_dim": sliding.head_dim,
        "global_head_dim": full.head_dim,
        "num_global_key_value_heads": full.num_kv_heads,
        "num_experts": config.num_experts,
        "top_k_experts": config.top_k_experts,
        "sliding_window": config.sliding_window,
        "max_position_embeddings": config.max_context,
        "use_bidirectional_attention": "vision",
    }
    return DiffusionGemmaConfig(
        text_config=text,
        vision_config=_VISION,
        canvas_length=config.canvas_length,
        image_token_id=config.vocab_size + 1,
    )
