"""The models on this machine: what they are, how large, whole or not, when they were last used."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dgemma_cli.catalog import cache, known
from dgemma_cli.catalog.names import DEFAULT_REVISION, NANO_FOLDER, short_name
from dgemma_cli.errors import CheckpointError
from dgemma_cli.weights.scheme import read_scheme

_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One model. name: what to type for it; size: bytes on disk; there, needed: how many files; last_used: when its
    weights were last read, as far as the file system keeps count.
    """

    name: str
    repository: str | None
    commit: str | None
    format: str
    size: int
    there: int
    needed: int
    last_used: datetime | None
    folder: Path

    @property
    def complete(self) -> bool:
        return self.there == self.needed


def entries(cache_folder: Path | None = None) -> list[Entry]:
    """The model of the package, and every DiffusionGemma of the cache, also those whose pull is not finished."""
    found = []
    if (NANO_FOLDER / "config.json").exists():
        size, used = _measure(NANO_FOLDER)
        found.append(Entry(known.NANO, None, None, format_of(NANO_FOLDER), size, 1, 1, used, NANO_FOLDER))
    root = cache_folder or cache.root()
    for repository in cache.repositories(root):
        folder = cache.repository_folder(repository, root)
        begun = cache.begun(folder)
        snapshots = {
            snapshot.commit: snapshot
            for snapshot in cache.snapshots(repository, root)
            if snapshot.commit in begun or is_diffusion_gemma(snapshot.folder)
        }
        current = cache.choose(cache.candidates(folder, DEFAULT_REVISION), snapshots) if snapshots else None
        found += [_entry(snapshot, snapshot is current, folder) for snapshot in snapshots.values()]
    return found


def is_diffusion_gemma(folder: Path) -> bool:
    """Whether the folder's config.json says so."""
    return _config(folder).get("model_type") == "diffusion_gemma"


def format_of(folder: Path) -> str:
    """How the weights are stored, in a word: "bf16", "NVFP4"; "unknown" if the configuration does not say."""
    config = _config(folder)
    try:
        groups = read_scheme(folder, config).groups
    except CheckpointError:
        return "unknown"
    if groups:
        return ", ".join(dict.fromkeys(group.format.label for group in groups))
    dtype = config.get("dtype") or config.get("torch_dtype")
    return _DTYPES.get(str(dtype), "unknown")


def _entry(snapshot: cache.Snapshot, is_current: bool, folder: Path) -> Entry:
    repository = snapshot.repository
    size, used = _measure(snapshot.folder)
    if not snapshot.complete:
        size += _measure(folder / "blobs", ".incomplete")[0]
    return Entry(
        name=short_name(repository) if is_current else f"{repository}@{snapshot.commit}",
        repository=repository,
        commit=snapshot.commit,
        format=format_of(snapshot.folder),
        size=size,
        there=len(snapshot.needed) - len(snapshot.missing),
        needed=len(snapshot.needed),
        last_used=used,
        folder=snapshot.folder,
    )


def _measure(folder: Path, ending: str = "") -> tuple[int, datetime | None]:
    """Bytes of the files in ``folder``, or that its links lead to, and when the last of the weights was read."""
    size, used = 0, 0.0
    with suppress(OSError), os.scandir(folder) as files:
        for file in files:
            with suppress(OSError):
                status = file.stat()
                if file.name.endswith(ending):
                    size += status.st_size
                if file.name.endswith(".safetensors"):
                    used = max(used, status.st_atime)
    return size, datetime.fromtimestamp(used, UTC) if used else None


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        parsed = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
