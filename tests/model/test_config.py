"""config.json and generation_config.json: what is missing or senseless is named, whatever its type."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dgemma_cli.errors import CheckpointError
from dgemma_cli.model.config import LayerConfig, ModelConfig
from dgemma_cli.model.defaults import GenerationDefaults


def config(**text: Any) -> dict[str, Any]:
    """A config.json in the released spelling; ``text`` replaces values of text_config."""
    kinds = ["sliding_attention", "full_attention"]
    sizes = {
        "vocab_size": 97,
        "hidden_size": 64,
        "intermediate_size": 48,
        "moe_intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "global_head_dim": 32,
        "num_global_key_value_heads": 1,
        "num_experts": 8,
        "top_k_experts": 2,
        "sliding_window": 16,
        "layer_types": kinds,
        "max_position_embeddings": 4096,
    }
    return {"model_type": "diffusion_gemma", "canvas_length": 16, "text_config": sizes | text}


LAYERS = (LayerConfig(True, 4, 2, 16), LayerConfig(False, 4, 1, 32))


def test_released_spelling() -> None:
    found = ModelConfig.from_dict(config())
    assert found.layers == LAYERS
    assert (found.rms_norm_eps, found.logit_softcap, found.canvas_length) == (1e-6, 30.0, 16)
    assert (found.rotary_full.theta, found.rotary_full.partial) == (1e6, 0.25)
    assert (found.rotary_sliding.theta, found.rotary_sliding.partial) == (1e4, 1.0)


@pytest.mark.parametrize("key", ["1", "01", "0001"])
def test_newer_spelling(key: str) -> None:
    own = {"head_dim": 32, "num_key_value_heads": 1}
    found = config(per_layer_config={key: own}, global_head_dim=None, num_global_key_value_heads=None)
    assert ModelConfig.from_dict(found).layers == LAYERS


@pytest.mark.parametrize(
    "key",
    [
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "moe_intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "head_dim",
        "num_experts",
        "top_k_experts",
        "sliding_window",
        "max_position_embeddings",
    ],
)
@pytest.mark.parametrize("value", [None, 0, -1, True, 1.5, "64", [], 2**40])
def test_sizes(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{key}"):
        ModelConfig.from_dict(config(**{key: value}))


@pytest.mark.parametrize("key", ["model_type", "text_config", "canvas_length"])
@pytest.mark.parametrize("value", [None, [], 0, "gemma4"])
def test_top_level(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=key):
        ModelConfig.from_dict(config() | {key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("layer_types", 2),
        ("layer_types", "sf"),
        ("layer_types", []),
        ("layer_types", ["full_attention"]),
        ("layer_types", ["full_attention", "sliding_attention"]),
        ("layer_types", ["linear_attention", "full_attention"]),
        ("layer_types", [None, "full_attention"]),
        ("layer_types", [["sliding_attention"], "full_attention"]),
        ("per_layer_config", []),
        ("per_layer_config", {"one": {}}),
        ("per_layer_config", {"-1": {}}),
        ("per_layer_config", {"٣": {}}),
        ("per_layer_config", {"2": {}}),
        ("per_layer_config", {"1": {}, "01": {}}),
        ("per_layer_config", {"1": None}),
        ("per_layer_config", {"1": 7}),
        ("per_layer_config", {"9" * 5000: {}}),
        ("rope_parameters", [1]),
        ("rope_parameters", {"full_attention": 7}),
        ("rms_norm_eps", float("nan")),
        ("rms_norm_eps", float("inf")),
        ("rms_norm_eps", "1e-6"),
        ("final_logit_softcapping", 0),
        ("hidden_activation", "silu"),
        ("attention_bias", True),
        ("tie_word_embeddings", False),
        ("use_bidirectional_attention", "all"),
        ("num_experts", 1),  # fewer than top_k_experts
        ("num_key_value_heads", 3),
        ("head_dim", 15),
    ],
)
def test_senseless_values(key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: ") as caught:
        ModelConfig.from_dict(config(**{key: value}))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200


@pytest.mark.parametrize(
    ("kind", "key", "value"),
    [
        ("full_attention", "rope_type", "yarn"),
        ("sliding_attention", "rope_type", "proportional"),
        ("full_attention", "partial_rotary_factor", 1.5),
        ("full_attention", "rope_theta", -1),
        ("full_attention", "rope_theta", True),
    ],
)
def test_rotary(kind: str, key: str, value: Any) -> None:
    with pytest.raises(CheckpointError, match=rf"rope_parameters\.{kind}\.{key}"):
        ModelConfig.from_dict(config(rope_parameters={kind: {key: value}}))


def write(folder: Path, settings: dict[str, Any] | None, **top: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config() | top))
    if settings is not None:
        (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def test_defaults_of_the_release(tmp_path: Path) -> None:
    settings = {
        "max_denoising_steps": 20,
        "t_min": 0.3,
        "t_max": 0.9,
        "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.2},
        "stability_threshold": 2,
        "confidence_threshold": 0.01,
        "eos_token_id": [1, 106, 50],
        "max_new_tokens": 256,
    }
    found = GenerationDefaults.from_folder(write(tmp_path, settings))
    assert found == GenerationDefaults(20, 0.3, 0.9, 0.2, 2, 0.01, frozenset({1, 106, 50}))


def test_eos_of_config_json(tmp_path: Path) -> None:
    assert GenerationDefaults.from_folder(write(tmp_path, None, eos_token_id=7)).eos_ids == {7}
    assert GenerationDefaults.from_folder(write(tmp_path, {}, eos_token_id=[7, 8])).eos_ids == {7, 8}
    assert GenerationDefaults.from_folder(write(tmp_path, {"eos_token_id": 9}, eos_token_id=7)).eos_ids == {9}


@pytest.mark.parametrize(
    "settings",
    [
        {"max_denoising_steps": 0},
        {"max_denoising_steps": 2.5},
        {"max_denoising_steps": True},
        {"stability_threshold": -1},
        {"t_min": "0.4"},
        {"t_max": float("nan")},
        {"confidence_threshold": -1},
        {"sampler_config": 7},
        {"sampler_config": {"_cls_name": "other"}},
        {"sampler_config": {"entropy_bound": False}},
        {"eos_token_id": "1"},
        {"eos_token_id": True},
        {"eos_token_id": [1, None]},
    ],
)
def test_senseless_defaults(tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="|".join([*settings, "'other'", "entropy_bound"])) as caught:
        GenerationDefaults.from_folder(write(tmp_path, settings))
    assert "\n" not in caught.value.message
