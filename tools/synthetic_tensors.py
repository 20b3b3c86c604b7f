"""What stands in a published checkpoint: every tensor's name, dtype and shape, and random values that make sense in it.

Written from the published layouts, not from the loader: so the loader can be tested against it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Generator, Tensor

Draw = Callable[[Generator], Tensor]

FULL: dict[str, Any] = {
    "architectures": ["DiffusionGemmaForBlockDiffusion"],
    "model_type": "diffusion_gemma",
    "dtype": "bfloat16",
    "canvas_length": 256,
    "boi_token_id": 255999,
    "eoi_token_id": 258882,
    "image_token_id": 258880,
    "eos_token_id": [1, 106],
    "tie_word_embeddings": True,
    "text_config": {
        "model_type": "diffusion_gemma_text",
        "vocab_size": 262144,
        "hidden_size": 2816,
        "intermediate_size": 2112,
        "moe_intermediate_size": 704,
        "num_hidden_layers": 30,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "num_global_key_value_heads": 2,
        "global_head_dim": 512,
        "num_experts": 128,
        "top_k_experts": 8,
        "sliding_window": 1024,
        "layer_types": (["sliding_attention"] * 5 + ["full_attention"]) * 5,
        "max_position_embeddings": 262144,
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
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_hidden_layers": 27,
        "num_attention_heads": 16,
        "num_key_value_heads": 16,
        "head_dim": 72,
        "global_head_dim": 72,
        "patch_size": 16,
        "pooling_kernel_size": 3,
        "position_embedding_size": 10240,
        "default_output_length": 280,
        "standardize": True,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {"rope_theta": 100.0, "rope_type": "default"},
    },
}


def tiny() -> dict[str, Any]:
    """A configuration of a hundred thousand parameters in the same shape; every number of inputs is divisible by the
    groups that share a scale, but for the experts' in INT8."""
    config = copy.deepcopy(FULL)
    config["canvas_length"], config["image_token_id"] = 16, 212
    config["text_config"] |= {
        "vocab_size": 211,
        "hidden_size": 64,
        "intermediate_size": 128,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_global_key_value_heads": 1,
        "global_head_dim": 32,
        "num_experts": 4,
        "top_k_experts": 2,
        "sliding_window": 16,
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "max_position_embeddings": 4096,
    }
    config["vision_config"] |= {
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
    return config


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor to write. dtype: safetensors' name of it; draw: makes its values, of this dtype and shape."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    draw: Draw


def entries(config: dict[str, Any], form: str) -> Iterator[Entry]:
    """Every tensor of a checkpoint of this config.json in the format ``form`` (a key of FORMATS), in the order of the
    model.
    """
    text = config["text_config"]
    hidden, inner = text["hidden_size"], text["intermediate_size"]
    yield from _matrices(form, "model.decoder", {"embed_tokens": (text["vocab_size"], hidden)}, "embed_tokens")
    for index, kind in enumerate(text["layer_types"]):
        yield from _layer(text, form, index, kind == "full_attention")
    yield _norm("model.decoder.norm.weight", hidden)
    yield _norm("model.decoder.self_conditioning.pre_norm.weight", hidden)
    yield from _matrices(form, "model.decoder.self_conditioning", _mlp(hidden, inner), "self_conditioning")
    for index in range(text["num_hidden_layers"]):
        yield _norm(f"model.encoder.language_model.layers.{index}.layer_scalar", 1)
    if "vision_config" in config:
        yield from _vision(config["vision_config"], hidden)


def _layer(text: dict[str, Any], form: str, index: int, full: bool) -> Iterator[Entry]:
    hidden, heads, experts = text["hidden_size"], text["num_attention_heads"], text["num_experts"]
    dim = text["global_head_dim"] if full else text["head_dim"]
    kv = dim * (text["num_global_key_value_heads"] if full else text["num_key_value_heads"])
    prefix = f"model.decoder.layers.{index}"
    attention = {"q_proj": (heads * dim, hidden), "k_proj": (kv, hidden), "o_proj": (hidden, heads * dim)}
    if not full:
        attention["v_proj"] = (kv, hidden)
    yield from _matrices(form, f"{prefix}.self_attn", attention, "self_attn")
    for which in ("q_norm", "k_norm"):
        yield _plain(f"{prefix}.self_attn.{which}.weight", (dim,), dim**-0.25, 0.1 * dim**-0.25)
    mlp = _mlp(hidden, text["intermediate_size"])
    yield from _matrices(form, f"{prefix}.mlp", mlp, "mlp")
    for which in (
        "input_layernorm",
        "post_attention_layernorm",
        "pre_feedforward_layernorm",
        "pre_feedforward_layernorm_2",
        "post_feedforward_layernorm",
        "post_feedforward_layernorm_1",
        "post_feedforward_layernorm_2",
    ):
        yield _norm(f"{prefix}.{which}.weight", hidden)
    yield _plain(f"{prefix}.router.proj.weight", (experts, hidden), 0.0, hidden**-0.5)
    yield _norm(f"{prefix}.router.scale", hidden)
    yield _norm(f"{prefix}.router.per_expert_scale", experts)
    yield _norm(f"{prefix}.layer_scalar", 1)
    inner = text["moe_intermediate_size"]
    if "experts" in FORMATS[form].packs:
        for expert in range(experts):
            yield from _matrices(form, f"{prefix}.experts.{expert}", _mlp(hidden, inner), "experts")
    else:
        yield _plain(f"{prefix}.experts.gate_up_proj", (experts, 2 * inner, hidden), 0.0, hidden**-0.5)
        yield _plain(f"{prefix}.experts.down_proj", (experts, hidden, inner), 0.0, inner**-0.5)


def _mlp(hidden: int, inner: int) -> dict[str, tuple[int, int]]:
    return {"gate_proj": (inner, hidden), "up_proj": (inner, hidden), "down_proj": (hidden, inner)}


def _matrices(form: str, prefix: str, matrices: dict[str, tuple[int, int]], part: str) -> Iterator[Entry]:
    write = FORMATS[form].packs.get(part, _bf16_matrix)
    for name, (rows, columns) in matrices.items():
        yield from write(f"{prefix}.{name}.", rows, columns)


def _vision(vision: dict[str, Any], hidden: int) -> Iterator[Entry]:
    width, inner, dim = vision["hidden_size"], vision["intermediate_size"], vision["head_dim"]
    tower = "model.encoder.vision_tower."
    patch = 3 * vision["patch_size"] ** 2
    yield _plain(f"{tower}patch_embedder.input_proj.weight", (width, patch), 0.0, patch**-0.5)
    table = (2, vision["position_embedding_size"], width)
    yield _plain(f"{tower}patch_embedder.position_embedding_table", table, 0.0, 0.02)
    if vision.get("standardize"):
        yield _plain(f"{tower}std_bias", (width,), 0.0, 0.1)
        yield _norm(f"{tower}std_scale", width)
    for index in range(vision["num_hidden_layers"]):
        layer = f"{tower}encoder.layers.{index}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            yield _plain(f"{layer}self_attn.{name}.linear.weight", (width, width), 0.0, width**-0.5)
        for name in ("q_norm", "k_norm"):
            yield _norm(f"{layer}self_attn.{name}.weight", dim)
        for name, (rows, columns) in _mlp(width, inner).items():
            yield _plain(f"{layer}mlp.{name}.linear.weight", (rows, columns), 0.0, columns**-0.5)
        for place in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            yield _norm(f"{layer}{place}_layernorm.weight", width)
    yield _plain("model.encoder.embed_vision.embedding_projection.weight", (hidden, width), 0.0, width**-0.5)


def _plain(name: str, shape: tuple[int, ...], center: float, spread: float) -> Entry:
    def draw(generator: Generator) -> Tensor:
        # One block of rows at a time: a whole embedding in float32 would take 3 GB.
        values = torch.empty(shape, dtype=torch.bfloat16)
        for block in torch.split(values, max(1, 2**24 // values[0].numel())):
            block.copy_(torch.randn(block.shape, generator=generator).mul_(spread).add_(center))
        return values

    return Entry(name, "BF16", shape, draw)


def _norm(name: str, size: int) -> Entry:
    return _plain(name, (size,), 1.0, 0.2)


def _bytes(name: str, dtype: str, shape: tuple[int, ...], low: int, high: int) -> Entry:
    """Random bytes from low to high - 1, read as ``dtype`` of this shape."""
    kind = {"U8": torch.uint8, "I32": torch.int32, "F8_E4M3": torch.float8_e4m3fn}[dtype]

    def draw(generator: Generator) -> Tensor:
        size = (*shape[:-1], shape[-1] * kind.itemsize)
        return torch.randint(low, high, size, dtype=torch.uint8, generator=generator).view(kind)

    return Entry(name, dtype, shape, draw)


def _positive(name: str, dtype: str, shape: tuple[int, ...], center: float) -> Entry:
    """Values within 30 % of ``center``."""
    kind = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}[dtype]
    return Entry(name, dtype, shape, lambda g: (torch.rand(shape, generator=g) * 0.6 + 0.7).mul_(center).to(kind))


# Root mean squares of codes drawn uniformly.
_E2M1_RMS, _INT4_RMS, _INT8_RMS = 2.93, 4.64, 73.9
_FP8_SCALES = (0x50, 0x68)  # E4M3 bytes of 8 to 60, on average about 26
_FP8_SCALES_MEAN = 26.0


def _bf16_matrix(prefix: str, rows: int, columns: int) -> Iterator[Entry]:
    yield _plain(f"{prefix}weight", (rows, columns), 0.0, columns**-0.5)


def _modelopt_matrix(prefix: str, rows: int, columns: int) -> Iterator[Entry]:
    scale = columns**-0.5 / _E2M1_RMS / _FP8_SCALES_MEAN
    yield _bytes(f"{prefix}weight", "U8", (rows, columns // 2), 0, 256)
    yield _bytes(f"{prefix}weight_scale", "F8_E4M3", (rows, columns // 16), *_FP8_SCALES)
    yield _positive(f"{prefix}weight_scale_2", "F32", (), scale)
    yield _positive(f"{prefix}input_scale", "F32", (), 0.01)


def _nvfp4_matrix(prefix: str, rows: int, columns: int) -> Iterator[Entry]:
    scale = columns**-0.5 / _E2M1_RMS / _FP8_SCALES_MEAN
    yield _bytes(f"{prefix}weight_packed", "U8", (rows, columns // 2), 0, 256)
    yield _bytes(f"{prefix}weight_scale", "F8_E4M3", (rows, columns // 16), *_FP8_SCALES)
    yield _positive(f"{prefix}weight_global_scale", "F32", (1,), 1 / scale)
    yield _positive(f"{prefix}input_global_scale", "F32", (1,), 100.0)


def _int4_matrix(prefix: str, rows: int, columns: int) -> Iterator[Entry]:
    yield _bytes(f"{prefix}weight_packed", "I32", (rows, columns // 8), 0, 256)
    yield _positive(f"{prefix}weight_scale", "F16", (rows, columns // 32), columns**-0.5 / _INT4_RMS)
    yield Entry(f"{prefix}weight_shape", "I64", (2,), lambda _: torch.tensor([rows, columns]))


def _int8_matrix(prefix: str, rows: int, columns: int) -> Iterator[Entry]:
    yield _bytes(f"{prefix}weight_packed", "I32", (rows, columns // 4), 0, 256)
    yield _positive(f"{prefix}weight_scale", "BF16", (rows, columns // 64), columns**-0.5 / _INT8_RMS)
    yield Entry(f"{prefix}weight_shape", "I64", (2,), lambda _: torch.tensor([rows, columns]))


def _fp8_matrix(prefix: str, rows: int, columns: int) -> Iterator[Entry]:
    def draw(generator: Generator) -> Tensor:
        return torch.randn(rows, columns, generator=generator).mul_(64).to(torch.float8_e4m3fn)

    yield Entry(f"{prefix}weight", "F8_E4M3", (rows, columns), draw)
    yield _positive(f"{prefix}weight_scale", "F32", (rows, 1), columns**-0.5 / 64)


Matrix = Callable[[str, int, int], Iterator[Entry]]  # the tensors of a matrix: their prefix, rows, columns


@dataclass(frozen=True, slots=True)
class Form:
    """A format. packs: how the quantised parts of the model are stored; config: its quantization_config, if any."""

    packs: Mapping[str, Matrix] = field(default_factory=dict)
    config: dict[str, Any] | None = None


def _compressed(*groups: dict[str, Any], ignore: tuple[str, ...] = ()) -> dict[str, Any]:
    alone = groups[0].pop("format") if len(groups) == 1 else None
    return {
        "quant_method": "compressed-tensors",
        "format": alone or "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {f"group_{number}": group for number, group in enumerate(groups)},
        "ignore": ["lm_head", "re:.*router.*", "re:.*vision.*", *ignore],
    }


def _group(form: str, bits: int, kind: str, strategy: str, size: int | None, *targets: str) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "strategy": strategy, "group_size": size, "symmetric": True}
    return {
        "targets": list(targets) or ["Linear"],
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "format": form,
    }


def _nvfp4(*targets: str) -> dict[str, Any]:
    return _group("nvfp4-pack-quantized", 4, "float", "tensor_group", 16, *targets)


def _int4(*targets: str) -> dict[str, Any]:
    return _group("pack-quantized", 4, "int", "group", 32, *targets)


def _int8(*targets: str) -> dict[str, Any]:
    return _group("pack-quantized", 8, "int", "group", 64, *targets)


_EXPERTS, _ATTENTION, _MLP = "re:.*experts.*", "re:.*self_attn.*", "re:.*[.]mlp[.].*"
_SELF, _EMBEDDING = "re:.*self_conditioning.*", "re:.*embed_tokens$"

FORMATS = {
    "bf16": Form(),
    "nvfp4": Form(
        {"experts": _modelopt_matrix},
        {
            "quant_method": "modelopt",
            "quant_algo": "NVFP4",
            "config_groups": {
                "group_0": {
                    "input_activations": {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16},
                    "weights": {"dynamic": False, "num_bits": 4, "type": "float", "group_size": 16},
                    "targets": ["Linear"],
                }
            },
            "ignore": [
                "lm_head",
                *(f"*{part}*" for part in ("embed_vision", "mlp", "router", "self_attn", "self_conditioning")),
                "*vision_tower*",
            ],
            "kv_cache_scheme": {"dynamic": False, "num_bits": 8, "type": "float"},
        },
    ),
    "nvfp4-redhat": Form(
        dict.fromkeys(("experts", "mlp"), _nvfp4_matrix), _compressed(_nvfp4(), ignore=(_SELF, _ATTENTION))
    ),
    "int4": Form(dict.fromkeys(("experts", "self_attn"), _int4_matrix), _compressed(_int4(), ignore=(_SELF, _MLP))),
    "fp8": Form(
        dict.fromkeys(("experts", "mlp", "self_attn"), _fp8_matrix),
        _compressed(_group("float-quantized", 8, "float", "channel", None), ignore=(_SELF,)),
    ),
    # What `dgemma quantize --dense` writes.
    "nvfp4-8bit": Form(
        {"experts": _nvfp4_matrix}
        | dict.fromkeys(("mlp", "self_attn", "self_conditioning", "embed_tokens"), _int8_matrix),
        _compressed(_nvfp4(_EXPERTS), _int8(_ATTENTION, _MLP, _SELF, _EMBEDDING)),
    ),
    "int4-4bit": Form(
        dict.fromkeys(("experts", "mlp", "self_attn"), _int4_matrix)
        | dict.fromkeys(("self_conditioning", "embed_tokens"), _int8_matrix),
        _compressed(_int4(_EXPERTS, _ATTENTION, _MLP), _int8(_SELF, _EMBEDDING)),
    ),
}
