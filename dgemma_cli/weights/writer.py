"""Write a checkpoint packed anew, in the published layouts, so that other tools read it too.

It is complete or absent: it grows in a hidden folder beside its place, and is moved there when all is on the disk.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dgemma_cli.errors import DiskError, UsageError
from dgemma_cli.model.config import read_json
from dgemma_cli.units import size
from dgemma_cli.weights.build import TORCH_DTYPES
from dgemma_cli.weights.checkpoint import Checkpoint, read_checkpoint
from dgemma_cli.weights.layout import VISION_PREFIXES, Plan
from dgemma_cli.weights.loader import check_tied_head
from dgemma_cli.weights.reader import Files, Task, fill
from dgemma_cli.weights.recipe import Recipe
from dgemma_cli.weights.repack import Losses, changed, repack
from dgemma_cli.weights.scheme_file import quantization_config
from dgemma_cli.weights.shards import INDEX, Stored

_SHARD = 5_000_000_000  # bytes of values in a file, about
_PIECE = 32 * 2**20  # bytes copied at once
_COPIED = (".json", ".jinja", ".md", ".txt", ".model")  # files beside the weights that belong to the model
_REPLACED = ("config.json", "hf_quant_config.json", INDEX)


@dataclass(frozen=True, slots=True)
class Draft:
    """A checkpoint to be written from another one. entries: every tensor and its place; headers: of the files."""

    source: Path
    checkpoint: Checkpoint
    plan: Plan
    config: Mapping[str, Any]
    entries: Mapping[str, Stored]
    headers: Mapping[Path, bytes]

    @property
    def size(self) -> int:
        """Bytes of the weights' files."""
        return sum(map(len, self.headers.values())) + sum(entry.size for entry in self.entries.values())

    @property
    def read(self) -> int:
        """Bytes of the source that writing reads, about."""
        return sum(stored.size for stored in self.checkpoint.stored.values())


def draft(source: Path, recipe: Recipe, shard: int = _SHARD) -> Draft:
    """What comes of the checkpoint ``source`` by ``recipe``, in files of about ``shard`` bytes; nothing is written.

    Raises CheckpointError for what is damaged or cannot be packed so, UsageError if the recipe changes nothing.
    """
    checkpoint = read_checkpoint(source)
    check_tied_head(checkpoint)
    if not changed(checkpoint.plan, checkpoint.repacked(recipe)):
        raise UsageError(f"There is nothing to quantise: {source.name} is stored with no more bits already.")
    plan = checkpoint.repacked(recipe, one_method=True)
    config = {**read_json(source / "config.json"), "quantization_config": quantization_config(plan)}
    made = changed(checkpoint.plan, plan)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for slot in plan.slots:
        if slot.tensor.rpartition(".")[0] in made:
            if not slot.part.optional:
                tensors[slot.tensor] = slot.part.dtypes[0], slot.shape
        elif slot.tensor in checkpoint.stored:
            tensors[slot.tensor] = checkpoint.stored[slot.tensor].dtype, slot.shape
    for name, stored in checkpoint.stored.items():
        if name.startswith(VISION_PREFIXES):
            tensors[name] = stored.dtype, stored.shape
    entries, headers = _lay_out(tensors, shard)
    return Draft(source, checkpoint, plan, config, entries, headers)


def _lay_out(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], shard: int
) -> tuple[dict[str, Stored], dict[Path, bytes]]:
    """Tensors in their order cut into files of about ``shard`` bytes of values, and these files' headers."""

    def length(name: str) -> int:
        dtype, shape = tensors[name]
        return prod(shape) * TORCH_DTYPES[dtype].itemsize

    shards: list[list[str]] = [[]]
    used = 0
    for name in tensors:
        if shards[-1] and used + length(name) > shard:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += length(name)
    entries, headers = {}, {}
    for number, names in enumerate(shards, 1):
        alone = len(shards) == 1
        file = Path("model.safetensors" if alone else f"model-{number:05}-of-{len(shards):05}.safetensors")
        # Widest values first, so that each stands at a multiple of its size.
        names.sort(key=lambda name: (-TORCH_DTYPES[tensors[name][0]].itemsize, name))
        table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name in names:
            dtype, shape = tensors[name]
            table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + length(name)]}
            end += length(name)
        text = json.dumps(table, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        headers[file] = len(text).to_bytes(8, "little") + text
        for name in names:
            dtype, shape = tensors[name]
            start = len(headers[file]) + table[name]["data_offsets"][0]
            entries[name] = Stored(file, dtype, shape, start, length(name))
    return entries, headers


def write(draft: Draft, target: Path, device: str, progress: Callable[[int, int], None] | None, losses: Losses) -> None:
    """Write ``draft`` as the folder ``target``; packing is computed on ``device``.

    progress: called with the bytes of the source read so far and in all; losses: told what rounding did. Raises
    UsageError if ``target`` exists, DiskError if there is no room or nothing can be written, CheckpointError for a bad
    source. Whatever is raised, an interrupt too, nothing is left behind.
    """
    if target.exists() or target.is_symlink():
        raise UsageError(f"{target} exists already.", "Name a folder that does not, or remove it first.")
    parent = target.absolute().parent
    if not parent.is_dir():
        raise DiskError(f"{parent} is no folder.")
    free = shutil.disk_usage(parent).free
    if draft.size > free:
        raise DiskError(f"{target} takes {size(draft.size)}, {size(free)} are free in {parent}.", "Make room first.")
    try:
        with _growing(parent / f".{target.name}.incomplete") as folder:
            _write_weights(draft, folder, device, progress, losses)
            _write_others(draft, folder)
            read_checkpoint(folder)
            for file in folder.iterdir():
                _sync(file)
            folder.rename(target)
            _sync(parent)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "The disk is full" if full else f"{error.filename or target} cannot be written: {error.strerror}"
        raise DiskError(f"{what}.", f"Nothing was left at {target}.") from None


@contextmanager
def _growing(folder: Path) -> Iterator[Path]:
    """A folder that is gone at the end unless it was moved. One that a killed run left is taken over."""
    folder.mkdir(exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"Another run is writing {folder}.") from None
        for left in folder.iterdir():
            left.unlink()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(descriptor)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Copy:
    """A reader's task: a tensor that stays as it is."""

    name: str
    stored: Stored
    put: Callable[[str, int, memoryview], None]

    @property
    def sources(self) -> Mapping[str, Stored]:
        return {self.name: self.stored}

    def run(self, files: Files) -> None:
        for first in range(0, self.stored.size, _PIECE):
            piece = torch.empty(min(_PIECE, self.stored.size - first), dtype=torch.uint8)
            files.read(self.name, self.stored, first, piece)
            self.put(self.name, first, piece.numpy().data)


def _write_weights(
    draft: Draft, folder: Path, device: str, progress: Callable[[int, int], None] | None, losses: Losses
) -> None:
    with ExitStack() as stack:
        opened: dict[Path, int] = {}
        for file, header in draft.headers.items():
            opened[file] = os.open(folder / file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            stack.callback(os.close, opened[file])
            end = max(entry.start + entry.size for entry in draft.entries.values() if entry.file == file)
            os.posix_fallocate(opened[file], 0, end)  # a full disk shows now, not in an hour
            _write_all(opened[file], header, 0)

        def put_bytes(name: str, first: int, data: memoryview) -> None:
            entry = draft.entries[name]
            _write_all(opened[entry.file], data, entry.start + first)

        def put(name: str, first: int, values: Tensor) -> None:
            data = values.cpu().contiguous().view(-1).view(torch.uint8).numpy().data
            entry = draft.entries[name]
            row = entry.size // entry.shape[0]
            put_bytes(name, first * row, data)

        pairs = changed(draft.checkpoint.plan, draft.plan)
        kept = [name for name in draft.entries if name.rpartition(".")[0] not in pairs]
        copies: list[Task] = [_Copy(name, draft.checkpoint.stored[name], put_bytes) for name in kept]
        fill([], progress, copies + repack(draft.checkpoint, pairs, device, put, losses))


def _write_all(descriptor: int, data: bytes | memoryview, offset: int) -> None:
    view = memoryview(data)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


def _write_others(draft: Draft, folder: Path) -> None:
    for file in draft.source.iterdir():
        known = file.suffix in _COPIED or file.name.startswith(("LICENSE", "NOTICE"))
        if known and file.name not in _REPLACED and file.is_file():
            shutil.copyfile(file, folder / file.name)
    (folder / "config.json").write_text(json.dumps(draft.config, indent=2) + "\n", encoding="utf-8")
    if len(draft.headers) > 1:
        total = sum(entry.size for entry in draft.entries.values())
        names = {name: entry.file.name for name, entry in sorted(draft.entries.items())}
        index = {"metadata": {"total_size": total}, "weight_map": names}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
