"""The embedded model's config.json and generation_config.json."""

from __future__ import annotations

from typing import Any


def config(
    vocabulary: int, hidden: int = 128, layers: int = 6, mlp: int = 256, experts: int = 4, inner: int = 64
) -> dict[str, Any]:
    """A small DiffusionGemma: every second layer full, grouped key heads, distinct sizes where the architecture
    has them. The vision tower is the smallest that transformers takes; its weights are not shipped.
    """
    head = 32
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": "diffusion_gemma",
        "dtype": "bfloat16",
        "canvas_length": 64,
        "boi_token_id": None,
        "eoi_token_id": None,
        "image_token_id": None,
        "eos_token_id": [1, 10],
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "text_config": {
            "model_type": "diffusion_gemma_text",
            "vocab_size": vocabulary,
            "hidden_size": hidden,
            "intermediate_size": mlp,
            "moe_intermediate_size": inner,
            "num_hidden_layers": layers,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": head,
            "num_global_key_value_heads": 2,
            "global_head_dim": head,
            "num_experts": experts,
            "top_k_experts": 2,
            "sliding_window": 128,
            "layer_types": ["sliding_attention" if i % 2 == 0 else "full_attention" for i in range(layers)],
            "max_position_embeddings": 4096,
            "rms_norm_eps": 1e-06,
            "hidden_activation": "gelu_pytorch_tanh",
            "attention_bias": False,
            "final_logit_softcapping": 30.0,
            "use_bidirectional_attention": "vision",
            "tie_word_embeddings": True,
            "bos_token_id": 2,
            "eos_token_id": 1,
            "pad_token_id": 0,
            "rope_parameters": {
                "full_attention": {"rope_type": "proportional", "rope_theta": 1000000.0, "partial_rotary_factor": 0.25},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        "vision_config": {
            "model_type": "gemma4_vision",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "patch_size": 16,
            "pooling_kernel_size": 3,
            "position_embedding_size": 16,
            "default_output_length": 4,
        },
    }


GENERATION = {
    "max_denoising_steps": 48,
    "t_max": 0.8,
    "t_min": 0.4,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
    "stability_threshold": 1,
    "confidence_threshold": 0.005,
    "bos_token_id": 2,
    "eos_token_id": [1, 10, 5],
    "pad_token_id": 0,
    "max_new_tokens": 2048,
}
