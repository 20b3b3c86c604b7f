"""A checkpoint folder, read as far as configuration and headers tell: no weights, and no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dgemma_cli.errors import CheckpointError
from dgemma_cli.model.config import ModelConfig, read_json
from dgemma_cli.model.defaults import GenerationDefaults
from dgemma_cli.weights.layout import TIED_HEAD, VISION_PREFIXES, Plan, make_plan
from dgemma_cli.weights.recipe import Recipe
from dgemma_cli.weights.scheme import Scheme, read_scheme
from dgemma_cli.weights.shards import Stored, read_folder


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """plan: what the model needs; stored: what the files hold; skipped: how many vision tensors these have."""

    config: ModelConfig
    defaults: GenerationDefaults
    scheme: Scheme
    plan: Plan
    stored: Mapping[str, Stored]
    skipped: int

    def repacked(self, recipe: Recipe, one_method: bool = False) -> Plan:
        """What the model needs once ``recipe`` is followed, see its ``over``.

        Raises CheckpointError if a matrix cannot be packed so.
        """
        return _plan(self.config, recipe.over(self.scheme, one_method), self.stored)


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read and check everything but the values: the files are whole, every tensor is one that the model knows, none is
    missing, all have the right shape and dtype. Raises CheckpointError or ModelUnavailable, naming file and tensor.
    """
    parsed = read_json(folder / "config.json")
    config = ModelConfig.from_dict(parsed)
    scheme = read_scheme(folder, parsed)
    defaults = GenerationDefaults.from_folder(folder)
    stored = read_folder(folder)
    plan = _plan(config, scheme, stored)
    return Checkpoint(config, defaults, scheme, plan, stored, _check(plan, stored))


def _plan(config: ModelConfig, scheme: Scheme, stored: Mapping[str, Stored]) -> Plan:
    return make_plan(config, scheme, lambda name: stored[name].dtype if name in stored else None)


def _check(plan: Plan, stored: Mapping[str, Stored]) -> int:
    """Compare what the model needs with what the files hold. Returns the number of vision tensors."""
    missing = [slot.tensor for slot in plan.slots if slot.tensor not in stored and not slot.part.optional]
    if missing:
        raise CheckpointError(f"The checkpoint lacks {_listed(missing)}.")
    vision = {name for name in stored if name.startswith(VISION_PREFIXES)}
    left = sorted(set(stored) - {slot.tensor for slot in plan.slots} - vision - {TIED_HEAD})
    if left:
        file = stored[left[0]].file.name
        raise CheckpointError(f"{file} holds {_listed(left)}, which the model does not know.")
    for slot in plan.slots:
        if slot.tensor not in stored:
            continue
        found = stored[slot.tensor]
        if found.shape != slot.part.shape:
            shapes = f"has shape {list(found.shape)}, the configuration says {list(slot.part.shape)}"
            raise CheckpointError(f"{found.file.name}: {slot.tensor} {shapes}.")
        if found.dtype not in slot.part.dtypes:
            expected = " or ".join(slot.part.dtypes)
            raise CheckpointError(f"{found.file.name}: {slot.tensor} is {found.dtype}; {expected} expected.")
    return len(vision)


def _listed(names: list[str], most: int = 3) -> str:
    rest = f" and {len(names) - most} more tensors" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
