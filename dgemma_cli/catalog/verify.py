"""Whether the files of a checkpoint fit together: index, headers of the weights, configuration."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from dgemma_cli.catalog.selection import INDEX, refuse_escape
from dgemma_cli.errors import CheckpointError
from dgemma_cli.model.config import read_json
from dgemma_cli.weights.checkpoint import read_checkpoint


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
    """After the weights have come: index, headers and configuration agree, as loading will ask for once more.

    Raises CheckpointError, ModelUnavailable.
    """
    read_checkpoint(snapshot)
