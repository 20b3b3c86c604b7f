"""Which matrices of a checkpoint are packed, and how: read from its own configuration, never guessed from names.

Imports no torch. Anything not understood is refused by its name, since weights read wrongly give noise, not an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from dgemma_cli.errors import CheckpointError
from dgemma_cli.model.config import read_json
from dgemma_cli.weights.formats import Format, FP8Format, Int4Format, Int8Format, NVFP4Format

_MODELOPT_FILE = "hf_quant_config.json"
_HINT = (
    "The formats that dgemma reads: bf16, NVFP4 (ModelOpt, compressed-tensors), INT4 group 32, INT8 group 64, FP8 per "
    "channel."
)


Kind = Literal["Linear", "Embedding"]


@dataclass(frozen=True, slots=True)
class Group:
    """targets: patterns of the modules in this format, or the name of a kind of module, for all of these."""

    targets: tuple[str, ...]
    format: Format


@dataclass(frozen=True, slots=True)
class Scheme:
    """The groups in their order, and what is left as plain numbers. A pattern is a name, a glob, or a regular
    expression behind "re:".
    """

    groups: tuple[Group, ...] = ()
    ignore: tuple[str, ...] = ()

    def format_of(self, module: str, kind: Kind = "Linear") -> Format | None:
        """The format of the matrix called ``module`` in the checkpoint; None if it is plain."""
        if any(match(module) for match in _matches(self.ignore)):
            return None
        for group in self.groups:
            if kind in group.targets or any(match(module) for match in _matches(group.targets)):
                return group.format
        return None


@lru_cache  # a network has 12,000 modules
def _matches(patterns: tuple[str, ...]) -> tuple[Callable[[str], object], ...]:
    """Whether a module's name is one of a pattern's, for each of the patterns."""
    found = (pattern[3:] if pattern.startswith("re:") else translate(pattern) for pattern in patterns)
    return tuple(re.compile(pattern).match for pattern in found)


def read_scheme(folder: Path | None, config: Mapping[str, Any]) -> Scheme:
    """The scheme of a checkpoint. config: its parsed config.json; folder: where it lies, if it is here.

    Raises CheckpointError for what is unknown.
    """
    found = config.get("quantization_config")
    file = folder / _MODELOPT_FILE if folder is not None else None
    other = read_json(file).get("quantization") if file is not None and file.exists() else None
    if other is not None and not isinstance(other, Mapping):
        raise CheckpointError(f"{_MODELOPT_FILE}: quantization is not an object.")
    if found is None:
        if other is None or other.get("quant_algo") is None:
            return Scheme()
        return _modelopt(_MODELOPT_FILE, other, other.get("exclude_modules"))
    if not isinstance(found, Mapping):
        raise CheckpointError("config.json: quantization_config is not an object.")
    method = found.get("quant_method")
    if method == "modelopt":
        algorithm = found.get("quant_algo")
        if other is not None and other.get("quant_algo") != algorithm:
            raise CheckpointError(
                f"config.json says that the weights are {algorithm!r}, {_MODELOPT_FILE} {other.get('quant_algo')!r}."
            )
        return _modelopt("config.json", found, found.get("ignore"))
    if method == "compressed-tensors":
        return _compressed(found)
    raise CheckpointError(f"config.json: quantization method {method!r:.60} is unknown to dgemma.", _HINT)


def _modelopt(file: str, found: Mapping[str, Any], ignore: Any) -> Scheme:
    algorithm = found.get("quant_algo")
    if algorithm != "NVFP4":
        raise CheckpointError(f"{file}: ModelOpt format {algorithm!r:.60} is unknown to dgemma.", _HINT)
    sizes = {found.get("group_size", 16)}
    groups = found.get("config_groups") or {}
    if not isinstance(groups, Mapping):
        raise CheckpointError(f"{file}: config_groups is not an object.")
    for group in groups.values():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping) or (weights.get("num_bits"), weights.get("type")) != (4, "float"):
            raise CheckpointError(f"{file}: ModelOpt NVFP4 with weights {weights!r:.80} is unknown to dgemma.", _HINT)
        sizes.add(weights.get("group_size", 16))
    if sizes != {16}:
        raise CheckpointError(f"{file}: NVFP4 with groups of {sorted(sizes, key=str)} is unknown, only 16.", _HINT)
    return Scheme((Group(("Linear",), NVFP4Format(compressed=False)),), _patterns(file, "ignore list", ignore))


def _compressed(found: Mapping[str, Any]) -> Scheme:
    for key in ("sparsity_config", "transform_config"):
        if found.get(key) and found[key] != {"format": "dense"}:
            raise CheckpointError(f"config.json: quantization_config.{key} is not supported.", _HINT)
    status = found.get("quantization_status", "compressed")
    if status != "compressed":
        raise CheckpointError(f"config.json: quantization_status {status!r:.40} is not supported, only 'compressed'.")
    groups = found.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise CheckpointError("config.json: quantization_config has no proper config_groups.")
    parsed = []
    for name, group in groups.items():
        if not isinstance(group, Mapping) or not isinstance(group.get("weights"), Mapping):
            raise CheckpointError(f"config.json: {name} of config_groups does not say how weights are stored.")
        form = _compressed_format(group.get("format") or found.get("format"), group["weights"])
        parsed.append(Group(_patterns("config.json", f"targets of {name}", group.get("targets")), form))
    return Scheme(tuple(parsed), _patterns("config.json", "ignore list", found.get("ignore")))


def _compressed_format(name: Any, weights: Mapping[str, Any]) -> Format:
    """The format of a group: its name and its arguments must both be ones that are read here."""
    kind = (weights.get("num_bits"), weights.get("type"), weights.get("strategy"), weights.get("group_size"))
    plain = weights.get("symmetric", True) is True and not weights.get("dynamic")
    ordered = weights.get("actorder") in (None, "static", "weight")  # "group" needs a permutation of the inputs
    if plain and ordered:
        if name == "nvfp4-pack-quantized" and kind == (4, "float", "tensor_group", 16):
            return NVFP4Format(compressed=True)
        if name == "pack-quantized" and kind == (4, "int", "group", 32):
            return Int4Format()
        if name == "pack-quantized" and kind == (8, "int", "group", 64):
            return Int8Format()
        if name == "float-quantized" and kind[:3] == (8, "float", "channel"):
            return FP8Format()
    told = ", ".join(f"{key} {value!r}" for key, value in weights.items() if value is not None and key != "observer")
    raise CheckpointError(f"config.json: compressed-tensors {name!r:.40} with {told:.160} is unknown to dgemma.", _HINT)


def _patterns(file: str, what: str, found: Any) -> tuple[str, ...]:
    found = [] if found is None else found
    if not isinstance(found, list) or not all(isinstance(pattern, str) for pattern in found):
        raise CheckpointError(f"{file}: the {what} of the quantisation must be a list of names.")
    for pattern in found:
        try:
            re.compile(pattern.removeprefix("re:") if pattern.startswith("re:") else "")
        except re.error as error:
            raise CheckpointError(f"{file}: {pattern!r} in the {what} is no regular expression: {error}.") from None
    return tuple(found)
