"""The safetensors files of a checkpoint folder: which there are and which tensor stands where. Imports no torch.

Only headers are read here. Everything that can be wrong with the files is found before a byte of weights is loaded.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgemma_cli.errors import CheckpointError, ModelUnavailable
from dgemma_cli.model.config import read_json

INDEX = "model.safetensors.index.json"
_HEADER_LIMIT = 100 * 1024 * 1024  # the format's own bound
_ITEM_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
_ITEM_BYTES |= {"F8_E4M3": 1, "F8_E5M2": 1}


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor as it stands in a file. dtype: the format's own name ("BF16"); start: its first byte in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    size: int


def read_folder(folder: Path) -> dict[str, Stored]:
    """All tensors of a checkpoint by name, from the index if there is one, else from its only file.

    Raises ModelUnavailable for missing files and CheckpointError for damaged or contradicting ones.
    """
    if (folder / INDEX).exists():
        return _read_indexed(folder)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ModelUnavailable(f"{folder} has no *.safetensors file.", "dgemma loads safetensors checkpoints only.")
    if len(files) > 1:
        raise CheckpointError(
            f"{folder} has {len(files)} safetensors files and no {INDEX}.", "Fetch the checkpoint's index file too."
        )
    return read_header(files[0])


def _read_indexed(folder: Path) -> dict[str, Stored]:
    weight_map = read_json(folder / INDEX).get("weight_map")
    if not isinstance(weight_map, Mapping) or not all(isinstance(name, str) for name in weight_map.values()):
        raise CheckpointError(f"{folder / INDEX} has no proper 'weight_map'.")
    names = sorted(set(weight_map.values()))
    for name in names:
        if Path(name).name != name or name in ("", ".."):
            raise CheckpointError(f"{folder / INDEX} names a file outside of the folder: {name!r}.")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise ModelUnavailable(
            f"{folder} is incomplete: {len(names) - len(missing)} of {len(names)} files, {missing[0]} is missing.",
            "`dgemma pull` fetches what is missing and keeps what is there.",
        )
    found: dict[str, Stored] = {}
    for name in names:
        for tensor, stored in read_header(folder / name).items():
            if tensor in found:
                raise CheckpointError(f"{tensor} stands in two files: {found[tensor].file.name} and {name}.")
            if tensor not in weight_map:
                raise CheckpointError(f"{name} holds {tensor}, which {INDEX} does not name.")
            if weight_map[tensor] != name:
                raise CheckpointError(f"{INDEX} says that {tensor} is in {weight_map[tensor]}, it is in {name}.")
            found[tensor] = stored
    for tensor, name in weight_map.items():
        if tensor not in found:
            raise CheckpointError(f"{INDEX} names {tensor}, which is not in {name}.")
    return found


def read_header(file: Path) -> dict[str, Stored]:
    """The tensors of one safetensors file. Raises CheckpointError if the file is damaged or cut short."""
    try:
        total = file.stat().st_size
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if total < 8 or length > min(_HEADER_LIMIT, total - 8):
                raise CheckpointError(f"{file} is no safetensors file, or was cut short ({total:,} bytes).")
            header: dict[str, Any] = json.loads(stream.read(length), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise ModelUnavailable(f"{file} is missing.") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{file} cannot be read as safetensors: {error}") from None
    try:
        return _tensors(file, header, 8 + length, total)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise CheckpointError(f"{file} has a damaged safetensors header.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; ``json`` alone would keep the last of two equal keys and drop the other without a word."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} stands in it twice")
        found[key] = value
    return found


def _tensors(file: Path, header: Mapping[str, Any], data: int, total: int) -> dict[str, Stored]:
    """The entries of a header whose tensors begin at byte ``data`` of ``total``; KeyError and the like if damaged."""
    found = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        first, last = (_count(offset) for offset in entry["data_offsets"])
        shape = tuple(_count(size) for size in entry["shape"])
        if data + last > total:
            raise CheckpointError(
                f"{file.name} is cut short: {name} ends at byte {data + last:,} of {total:,}.",
                "Fetch the file again; `dgemma pull` resumes.",
            )
        needed = math.prod(shape) * _ITEM_BYTES.get(entry["dtype"], 0)
        if needed != last - first and entry["dtype"] in _ITEM_BYTES:
            raise CheckpointError(
                f"{file.name}: {name} has {last - first:,} bytes, its shape {list(shape)} needs others."
            )
        found[name] = Stored(file, entry["dtype"], shape, data + first, last - first)
    end = data
    for name, stored in sorted(found.items(), key=lambda item: (item[1].start, item[1].size)):
        if stored.start != end:
            raise CheckpointError(f"{file.name}: {name} does not begin where the tensor before it ends.")
        end += stored.size
    if end != total:
        raise CheckpointError(f"{file.name} is {total:,} bytes long, its tensors end at byte {end:,}.")
    return found


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError
    return value
