"""A plan's formats in the words of compressed-tensors, for config.json. Imports no torch."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from dgemma_cli.errors import CheckpointError
from dgemma_cli.weights.formats import Format, FP8Format, Int4Format, Int8Format, NVFP4Format
from dgemma_cli.weights.layout import Plan
from dgemma_cli.weights.recipe import PARTS, part_of
from dgemma_cli.weights.scheme import read_scheme

_PATTERNS = {
    "experts": "re:.*[.]experts[.].*",
    "attention": "re:.*[.]self_attn[.].*",
    "mlp": "re:.*[.]layers[.][0-9]+[.]mlp[.].*",
    "self-conditioning": "re:.*[.]self_conditioning[.].*",
    "embedding": "re:.*[.]embed_tokens$",
}
_ALWAYS_PLAIN = ("lm_head", "re:.*[.]router[.].*", "re:.*vision.*")


def quantization_config(plan: Plan) -> dict[str, Any]:
    """What config.json says of ``plan``. Raises CheckpointError if a part of the network has several formats."""
    formats: dict[str, set[Format | None]] = defaultdict(set)
    for matrix in plan.matrices.values():
        part = part_of(matrix.name)
        if part is not None:
            formats[part].add(matrix.format)
    groups: dict[Format, list[str]] = defaultdict(list)
    plain = list(_ALWAYS_PLAIN)
    for part in PARTS:
        form = formats[part].pop()
        if formats[part]:
            raise CheckpointError(f"The {part} of this checkpoint is in several formats, which cannot be written.")
        if form is None:
            plain.append(_PATTERNS[part])
        else:
            groups[form].append(_PATTERNS[part])
    written = [_group(form, targets) for form, targets in groups.items()]
    names = {group["format"] for group in written}
    found = {
        "quant_method": "compressed-tensors",
        "format": names.pop() if len(names) == 1 else "mixed-precision",
        "quantization_status": "compressed",
        "config_groups": {f"group_{number}": group for number, group in enumerate(written)},
        "ignore": plain,
        "kv_cache_scheme": None,
    }
    _check(plan, found)
    return found


def _group(form: Format, targets: list[str]) -> dict[str, Any]:
    size: int | None
    match form:
        case NVFP4Format():
            name, kind, strategy, size = "nvfp4-pack-quantized", "float", "tensor_group", form.group
        case Int4Format() | Int8Format():
            name, kind, strategy, size = "pack-quantized", "int", "group", form.group
        case FP8Format():
            name, kind, strategy, size = "float-quantized", "float", "channel", None
        case _:
            raise AssertionError(f"no name for {form.label}")
    weights = {
        "num_bits": form.bits,
        "type": kind,
        "strategy": strategy,
        "group_size": size,
        "symmetric": True,
        "dynamic": False,
    }
    return {
        "targets": targets,
        "weights": weights,
        "input_activations": None,
        "output_activations": None,
        "format": name,
    }


def _check(plan: Plan, found: dict[str, Any]) -> None:
    """What is written must be read as it was meant."""
    scheme = read_scheme(None, {"quantization_config": found})
    for matrix in plan.matrices.values():
        read = scheme.format_of(matrix.name, "Embedding" if part_of(matrix.name) == "embedding" else "Linear")
        if type(read) is not type(matrix.format):
            raise AssertionError(f"{matrix.name} would be read as {read}")
