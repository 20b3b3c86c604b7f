"""A model on this machine, described from its own files: sizes, format, sampler, licence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import prod
from pathlib import Path

from dgemma_cli.catalog.inventory import format_of
from dgemma_cli.model.config import ModelConfig, read_json
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.weights.checkpoint import read_checkpoint
from dgemma_cli.weights.layout import make_plan
from dgemma_cli.weights.scheme import Scheme

_LICENSE = re.compile(r"^license:\s*([^\s#]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Description:
    """What ``dgemma show`` tells. parameters: of the text model; active: those that one token uses; disk: bytes of
    the files.
    """

    architecture: str
    parameters: int
    active: int
    format: str
    config: ModelConfig
    defaults: GenerationDefaults
    license: str | None
    disk: int


def describe(folder: Path) -> Description:
    """Read configuration and headers. Raises CheckpointError, ModelUnavailable if they are not in order."""
    checkpoint = read_checkpoint(folder)
    config = checkpoint.config
    architectures = read_json(folder / "config.json").get("architectures")
    plain = make_plan(config, Scheme(), lambda _tensor: None)
    parameters = sum(prod(slot.part.shape) for slot in plain.slots)
    of_an_expert = 3 * config.hidden_size * config.moe_intermediate_size
    idle = len(config.layers) * (config.num_experts - config.top_k_experts) * of_an_expert
    return Description(
        architecture=str(architectures[0]) if isinstance(architectures, list) and architectures else "not stated",
        parameters=parameters,
        active=parameters - idle,
        format=format_of(folder),
        config=config,
        defaults=checkpoint.defaults,
        license=_license(folder),
        disk=sum(path.stat().st_size for path in folder.iterdir() if path.is_file()),
    )


def _license(folder: Path) -> str | None:
    """As the head of the model card states it."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    head = card.split("---", 2)[1] if card.startswith("---") and card.count("---") > 1 else ""
    found = _LICENSE.search(head)
    return found[1].strip("'\"") if found else None
