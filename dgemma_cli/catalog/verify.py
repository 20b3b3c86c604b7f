"""Whether the files of a checkpoint fit together: index, headers of the weights, configuration. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dgemma_cli.catalog.selection import INDEX, refuse_escape
from dgemma_cli.errors import CheckpointError
from dgemma_cli.model.config import ModelConfig, read_json
from dgemma_cli.weights.layout import EMBEDDING, slots
from dgemma_cli.weights.shards import read_folder


def check_index(snapshot: Path, repository: str, files: Collection[str]) -> None:
    """Before the weights come: every shard that the index names is one of ``files``. Raises CheckpointError."""
    if not (snapshot / INDEX).exists():
        return
    weight_map = read_json(snapshot / INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(f"{repository}: {INDEX} has no proper 'weight_map'.")
    for name in sorted({str(name) for name in weight_map.values()}):
        refuse_escape(name, repository)
        if name not in files:
            raise CheckpointError(f"{repository}: {INDEX} names {name}, which the repository does not have.")


def check_weights(snapshot: Path) -> None:
    """After the weights have come: their headers agree with the index and, where they are plain, with config.json.

    Packed tensors have names and shapes of their own, which loading checks. Raises CheckpointError.
    """
    parsed = read_json(snapshot / "config.json")
    stored = read_folder(snapshot)
    quantised = bool(parsed.get("quantization_config"))
    for slot in slots(ModelConfig.from_dict(parsed)):
        found = stored.get(slot.tensor)
        if found is None:
            if quantised and slot.tensor != EMBEDDING:
                continue
            raise CheckpointError(f"The checkpoint lacks {slot.tensor}.")
        if found.shape != slot.shape and not quantised:
            raise CheckpointError(
                f"{found.file.name}: {slot.tensor} has shape {list(found.shape)}, config.json says {list(slot.shape)}."
            )
