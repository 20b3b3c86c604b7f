"""config.json of a DiffusionGemma checkpoint, read into what the network needs. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgemma_cli.errors import CheckpointError, UsageError

_MISSING = object()
_MOST = 2**31 - 1  # of any size: products of a few still fit torch's 64 bits where the files agree
_MOST_MODULES = 4096  # layers, and experts a layer


@dataclass(frozen=True, slots=True)
class LayerConfig:
    """Shape of one layer's attention. Full layers have no v_proj: their values are the raw keys."""

    sliding: bool
    num_heads: int
    num_kv_heads: int
    head_dim: int


@dataclass(frozen=True, slots=True)
class RotaryConfig:
    """Rotary angles of one kind of layer: the first ``partial`` of them rotate, the others stay still."""

    theta: float
    partial: float


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """The sizes and constants of a network, under the field's names. Lengths are in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_experts: int
    top_k_experts: int
    layers: tuple[LayerConfig, ...]
    sliding_window: int
    rotary_sliding: RotaryConfig
    rotary_full: RotaryConfig
    rms_norm_eps: float
    logit_softcap: float
    canvas_length: int
    max_context: int

    @classmethod
    def from_folder(cls, folder: Path) -> ModelConfig:
        """Read ``folder/config.json``. Raises CheckpointError naming what is missing or wrong."""
        return cls.from_dict(read_json(folder / "config.json"))

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> ModelConfig:
        """Read the parsed config.json. Both spellings of the full layers' sizes are understood:
        ``global_head_dim`` / ``num_global_key_value_heads`` and ``per_layer_config`` (keys may be zero-padded).
        """
        model_type = config.get("model_type")
        if model_type != "diffusion_gemma":
            raise CheckpointError(
                f"config.json: model_type is {model_type!r}, not 'diffusion_gemma'.",
                "dgemma runs DiffusionGemma checkpoints only.",
            )
        if not isinstance(config.get("text_config"), Mapping):
            raise CheckpointError("config.json: the key 'text_config' is missing.")
        text = _Section(config["text_config"], "text_config.")
        top = _Section(config, "")
        text.refuse_unless("hidden_activation", "gelu_pytorch_tanh", default="gelu_pytorch_tanh")
        text.refuse_unless("attention_bias", False, default=False)
        text.refuse_unless("tie_word_embeddings", True, default=True)
        if text.values.get("use_bidirectional_attention") == "all":
            raise CheckpointError("config.json: use_bidirectional_attention 'all' is not supported.")
        rotary = text.values.get("rope_parameters") or {}
        found = cls(
            vocab_size=text.integer("vocab_size"),
            hidden_size=text.integer("hidden_size"),
            intermediate_size=text.integer("intermediate_size"),
            moe_intermediate_size=text.integer("moe_intermediate_size"),
            num_experts=text.integer("num_experts", most=_MOST_MODULES),
            top_k_experts=text.integer("top_k_experts"),
            layers=_layers(text),
            sliding_window=text.integer("sliding_window"),
            rotary_sliding=_rotary(rotary, "sliding_attention", "default", 10_000.0, 1.0),
            rotary_full=_rotary(rotary, "full_attention", "proportional", 1_000_000.0, 0.25),
            rms_norm_eps=text.number("rms_norm_eps", 1e-6),
            logit_softcap=text.number("final_logit_softcapping", 30.0),
            canvas_length=top.integer("canvas_length"),
            max_context=text.integer("max_position_embeddings"),
        )
        if found.top_k_experts > found.num_experts:
            raise CheckpointError(
                f"config.json: top_k_experts {found.top_k_experts} is more than num_experts {found.num_experts}."
            )
        return found

    def check_prompt(self, tokens: int) -> None:
        """Raises UsageError unless a canvas has room behind a prompt of so many tokens."""
        if tokens + self.canvas_length > self.max_context:
            raise UsageError(
                f"The prompt has {tokens:,} tokens; with a canvas of {self.canvas_length} the context of "
                f"{self.max_context:,} is full.",
                "Shorten the prompt.",
            )


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object. Raises CheckpointError that names the file."""
    try:
        parsed = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {path.name}.",
            "A model is a folder with config.json and *.safetensors files.",
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from None
    if not isinstance(parsed, dict):
        raise CheckpointError(f"{path} is not a JSON object.")
    return parsed


@dataclass(frozen=True, slots=True)
class _Section:
    """A part of config.json whose lookups raise errors with the key's full name."""

    values: Mapping[str, Any]
    prefix: str

    def integer(self, key: str, default: Any = _MISSING, most: int = _MOST) -> int:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
            raise CheckpointError(
                f"config.json: {self.prefix}{key} must be an integer from 1 to {most:,}, not {value!r:.40}."
            )
        return value

    def number(self, key: str, default: float) -> float:
        value = self._get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < _MOST:
            raise CheckpointError(f"config.json: {self.prefix}{key} must be a positive number, not {value!r:.40}.")
        return float(value)

    def refuse_unless(self, key: str, expected: object, default: object) -> None:
        value = self.values.get(key, default)
        if value != expected:
            raise CheckpointError(f"config.json: {self.prefix}{key} {value!r} is not supported, only {expected!r}.")

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is _MISSING:
            raise CheckpointError(f"config.json: the key '{self.prefix}{key}' is missing.")
        return value


def _layers(text: _Section) -> tuple[LayerConfig, ...]:
    count = text.integer("num_hidden_layers", most=_MOST_MODULES)
    heads = text.integer("num_attention_heads")
    kinds = text.values.get("layer_types")
    if kinds is None:
        kinds = ["full_attention" if i % 6 == 5 else "sliding_attention" for i in range(count)]
    if not isinstance(kinds, list):
        raise CheckpointError(f"config.json: text_config.layer_types must be a list, not {kinds!r:.40}.")
    if len(kinds) != count:
        raise CheckpointError(f"config.json: layer_types has {len(kinds)} entries for {count} layers.")
    if kinds[-1] != "full_attention":
        raise CheckpointError(f"config.json: the last layer must be 'full_attention', not {kinds[-1]!r}.")
    overrides = text.values.get("per_layer_config")
    if overrides is not None:
        by_layer = _per_layer(overrides, count)
    else:
        full = {"head_dim": text.integer("global_head_dim", 512)}
        if text.values.get("num_global_key_value_heads") is not None:
            full["num_key_value_heads"] = text.integer("num_global_key_value_heads")
        by_layer = {i: full for i, kind in enumerate(kinds) if kind == "full_attention"}
    layers = []
    for index, kind in enumerate(kinds):
        if kind not in ("sliding_attention", "full_attention"):
            raise CheckpointError(f"config.json: layer_types[{index}] is {kind!r}, which is unknown.")
        own = _Section({**text.values, **by_layer.get(index, {})}, f"text_config.layer {index}.")
        layer = LayerConfig(
            sliding=kind == "sliding_attention",
            num_heads=heads,
            num_kv_heads=own.integer("num_key_value_heads"),
            head_dim=own.integer("head_dim"),
        )
        if layer.head_dim % 2:
            raise CheckpointError(f"config.json: head_dim of layer {index} is {layer.head_dim}, an odd number.")
        if layer.num_heads % layer.num_kv_heads:
            raise CheckpointError(
                f"config.json: layer {index} has {heads} heads, not a multiple of its {layer.num_kv_heads} key heads."
            )
        layers.append(layer)
    return tuple(layers)


def _per_layer(overrides: Any, count: int) -> dict[int, dict[str, Any]]:
    """``per_layer_config`` by number of the layer; its keys may be zero-padded."""
    if not isinstance(overrides, Mapping):
        raise CheckpointError("config.json: text_config.per_layer_config is not an object.")
    found: dict[int, dict[str, Any]] = {}
    for key, value in overrides.items():
        index = int(key) if key.isascii() and key.isdigit() and len(key) < 9 else count
        if index >= count or index in found or not isinstance(value, Mapping):
            raise CheckpointError(f"config.json: text_config.per_layer_config[{key!r:.40}] is no object of one layer.")
        found[index] = dict(value)
    return found


def _rotary(parameters: Any, kind: str, rope_type: str, theta: float, partial: float) -> RotaryConfig:
    if not isinstance(parameters, Mapping):
        raise CheckpointError("config.json: text_config.rope_parameters is not an object.")
    values = parameters.get(kind) or {}
    if not isinstance(values, Mapping):
        raise CheckpointError(f"config.json: text_config.rope_parameters.{kind} is not an object.")
    own = _Section(values, f"text_config.rope_parameters.{kind}.")
    own.refuse_unless("rope_type", rope_type, default=rope_type)
    share = own.number("partial_rotary_factor", partial)
    if share > 1:
        raise CheckpointError(f"config.json: {own.prefix}partial_rotary_factor must be at most 1, not {share}.")
    return RotaryConfig(own.number("rope_theta", theta), share)
