"""generation_config.json: how the checkpoint's authors want it sampled. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgemma_cli.errors import CheckpointError
from dgemma_cli.model.config import read_json

_MOST = 2**31


@dataclass(frozen=True, slots=True)
class GenerationDefaults:
    """The reference sampler's settings (entropies in nats) and the ids that end a reply."""

    steps: int = 48
    t_min: float = 0.4
    t_max: float = 0.8
    entropy_bound: float = 0.1
    stability: int = 1
    confidence: float = 0.005
    eos_ids: frozenset[int] = frozenset({1})

    @classmethod
    def from_folder(cls, folder: Path) -> GenerationDefaults:
        """Read generation_config.json; without that file the built-in values and config.json's EOS ids hold.

        max_new_tokens is left aside on purpose: the published value is one canvas. Raises CheckpointError.
        """
        file = folder / "generation_config.json"
        settings = read_json(file) if file.exists() else {}
        sampler = settings.get("sampler_config") or {}
        if not isinstance(sampler, Mapping):
            raise CheckpointError(f"generation_config.json: sampler_config is not an object but {sampler!r:.40}.")
        if sampler.get("_cls_name", "EntropyBoundSamplerConfig") != "EntropyBoundSamplerConfig":
            raise CheckpointError(f"generation_config.json asks for an unknown sampler: {sampler['_cls_name']!r}.")
        eos = settings.get("eos_token_id", read_json(folder / "config.json").get("eos_token_id", 1))
        ids = eos if isinstance(eos, list) else [eos]
        if not all(type(token) is int for token in ids):
            raise CheckpointError(f"eos_token_id must be an id or a list of ids, not {eos!r:.60}.")
        built_in = cls()
        return cls(
            steps=_count(settings, "max_denoising_steps", built_in.steps, least=1),
            t_min=_number(settings, "t_min", built_in.t_min),
            t_max=_number(settings, "t_max", built_in.t_max),
            entropy_bound=_number(sampler, "entropy_bound", built_in.entropy_bound),
            stability=_count(settings, "stability_threshold", built_in.stability, least=0),
            confidence=_number(settings, "confidence_threshold", built_in.confidence),
            eos_ids=frozenset(ids),
        )


def _number(settings: Mapping[str, Any], key: str, built_in: float) -> float:
    value = settings.get(key)
    if value is None:
        return built_in
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _MOST:
        raise CheckpointError(f"generation_config.json: {key} must be a number of at least 0, not {value!r:.40}.")
    return value


def _count(settings: Mapping[str, Any], key: str, built_in: int, least: int) -> int:
    value = settings.get(key)
    if value is None:
        return built_in
    if type(value) is not int or not least <= value < _MOST:
        raise CheckpointError(
            f"generation_config.json: {key} must be an integer of at least {least}, not {value!r:.40}."
        )
    return value
