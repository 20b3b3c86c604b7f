"""How much memory a checkpoint's weights take, told from the headers of its safetensors files before any is fetched."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dgemma_cli.catalog.hub import RemoteFile, read
from dgemma_cli.catalog.names import Reference
from dgemma_cli.errors import CheckpointError
from dgemma_cli.weights.layout import VISION_PREFIXES
from dgemma_cli.weights.shards import read_header

BUDGET = 4_500_000  # bytes of headers read over the network at the most
_FIRST = 64 * 1024  # usually a whole header of a small file


@dataclass(frozen=True, slots=True)
class WeightBytes:
    """Bytes of the tensors that a text model loads. exact: False if this is only an upper bound, the files' size,
    because the headers are too long to be worth their transfer.
    """

    total: int
    exact: bool


def weigh(reference: Reference, commit: str, files: Sequence[RemoteFile], here: Mapping[str, Path]) -> WeightBytes:
    """Weigh the weight files of a repository. here: those that are on disk already.

    Raises CheckpointError for a damaged header, NetworkError, ModelUnavailable.
    """
    budget, total = BUDGET, 0
    for file in files:
        if file.name in here:
            stored = read_header(here[file.name])
            total += sum(tensor.size for name, tensor in stored.items() if not name.startswith(VISION_PREFIXES))
            continue
        if budget < _FIRST:
            return WeightBytes(sum(each.size for each in files), exact=False)
        start = read(reference, commit, file.name, 0, min(_FIRST, file.size))
        budget -= len(start)
        length = int.from_bytes(start[:8], "little")
        if len(start) < 8 or 8 + length > file.size:
            raise CheckpointError(f"{reference.repository}: {file.name} is no safetensors file.")
        rest = max(0, 8 + length - len(start))
        if rest > budget:
            return WeightBytes(sum(each.size for each in files), exact=False)
        if rest:
            start += read(reference, commit, file.name, len(start), rest)
            budget -= rest
        total += _text_bytes(start[8 : 8 + length], f"{reference.repository}: {file.name}")
    return WeightBytes(total, exact=True)


def _text_bytes(header: bytes, where: str) -> int:
    try:
        entries = json.loads(header)
        entries.pop("__metadata__", None)
        spans = [entry["data_offsets"] for name, entry in entries.items() if not name.startswith(VISION_PREFIXES)]
        return sum(int(last) - int(first) for first, last in spans)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{where} has a damaged safetensors header.") from None
