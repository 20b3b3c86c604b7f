"""The models on this machine: what they are, how large, whole or not, when they were last used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dgemma_cli.catalog import cache, known
from dgemma_cli.catalog.names import NANO_FOLDER, short_name
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
        size, used = _measure(list(NANO_FOLDER.iterdir()))
        found.append(Entry(known.NANO, None, None, format_of(NANO_FOLDER), size, 1, 1, used, NANO_FOLDER))
    for repository in cache.repositories(cache_folder):
        current = cache.find(repository, "main", cache_folder)
        for snapshot in cache.snapshots(repository, cache_folder):
            begun = cache.plan_file(cache.repository_folder(repository, cache_folder), snapshot.commit).exists()
            if begun or is_diffusion_gemma(snapshot.folder):
                is_current = current is not None and current.commit == snapshot.commit
                found.append(_entry(snapshot, is_current, cache_folder))
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


def _entry(snapshot: cache.Snapshot, is_current: bool, cache_folder: Path | None) -> Entry:
    repository = snapshot.repository
    files = list(snapshot.folder.iterdir()) if snapshot.folder.is_dir() else []
    size, used = _measure(files)
    if not snapshot.complete:
        blobs = cache.repository_folder(repository, cache_folder) / "blobs"
        size += _measure(list(blobs.glob("*.incomplete")))[0]
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


def _measure(files: list[Path]) -> tuple[int, datetime | None]:
    """Bytes of the files that links lead to, and when the last of the weights was read."""
    size, used = 0, 0.0
    for file in files:
        try:
            status = file.stat()
        except OSError:
            continue
        size += status.st_size
        if file.suffix == ".safetensors":
            used = max(used, status.st_atime)
    return size, datetime.fromtimestamp(used, UTC) if used else None


def _config(folder: Path) -> Mapping[str, Any]:
    try:
        parsed = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
