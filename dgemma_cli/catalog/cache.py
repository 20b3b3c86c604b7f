"""The Hugging Face cache as it lies on disk: which models are there, and whether they are whole. No network, no torch.

Besides what huggingface_hub keeps, a repository's folder has a folder ``dgemma``: ``plans/<commit>.json`` lists the
files a pull needs of a commit, ``pins/<revision>`` holds the commit that was last pulled in full. Both are written
atomically, and the pin last, so a model is either there or not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_INDEX = "model.safetensors.index.json"
_PREFIX = "models--"
_SHARD = re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files of one commit. needed: the names a complete one has; missing: those of them that are not there."""

    repository: str
    commit: str
    folder: Path
    needed: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def complete(self) -> bool:
        return not self.missing


def root() -> Path:
    """The cache folder, as HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME say."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser()


def offline() -> bool:
    """HF_HUB_OFFLINE is set: no request may be made."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def repository_folder(repository: str, cache: Path | None = None) -> Path:
    """Where the cache keeps ``owner/name``."""
    return (cache or root()) / (_PREFIX + repository.replace("/", "--"))


def repositories(cache: Path | None = None) -> list[str]:
    """The ids of all models in the cache, of whatever kind."""
    folder = cache or root()
    try:
        found = [entry.name for entry in os.scandir(folder) if entry.name.startswith(_PREFIX)]
    except OSError:
        return []
    return sorted(name.removeprefix(_PREFIX).replace("--", "/", 1) for name in found)


def find(repository: str, revision: str, cache: Path | None = None) -> Snapshot | None:
    """The snapshot of ``revision``: the one pulled last, else the one another tool left, else one whose pull was begun.
    None if there is none of them. A complete one goes before one that is not.
    """
    folder = repository_folder(repository, cache)
    if _COMMIT.fullmatch(revision):
        return _snapshot(repository, folder, revision)
    commits = candidates(folder, revision)
    found = {commit: snapshot for commit in commits if (snapshot := _snapshot(repository, folder, commit)) is not None}
    return choose(commits, found)


def choose(commits: Iterable[str], found: Mapping[str, Snapshot]) -> Snapshot | None:
    """The first of ``commits`` that is complete, else the first that is there."""
    there = [found[commit] for commit in commits if commit in found]
    return next((snapshot for snapshot in there if snapshot.complete), there[0] if there else None)


def candidates(folder: Path, revision: str) -> list[str]:
    """The commits that a revision of a repository may mean, the likeliest first."""
    commits = [_read_line(pin_file(folder, revision)), _read_line(folder / "refs" / revision)]
    for entry in _entries(folder / "dgemma" / "plans"):
        if _read_object(Path(entry.path)).get("revision") == revision:
            commits.append(Path(entry.name).stem)
    return list(dict.fromkeys(filter(_COMMIT.fullmatch, commits)))


def snapshots(repository: str, cache: Path | None = None, only: Iterable[str] | None = None) -> Iterator[Snapshot]:
    """Every snapshot of a repository, and the pulls that were begun; or those of them whose commits are in ``only``."""
    folder = repository_folder(repository, cache)
    commits = (
        set(only) if only is not None else begun(folder) | {entry.name for entry in _entries(folder / "snapshots")}
    )
    for commit in sorted(filter(_COMMIT.fullmatch, commits)):
        snapshot = _snapshot(repository, folder, commit)
        if snapshot is not None:
            yield snapshot


def begun(folder: Path) -> set[str]:
    """The commits of a repository that a pull was begun of."""
    return {Path(entry.name).stem for entry in _entries(folder / "dgemma" / "plans")}


def plan_file(repository_folder: Path, commit: str) -> Path:
    """Where the plan of a pull is kept."""
    return repository_folder / "dgemma" / "plans" / f"{commit}.json"


def pin_file(repository_folder: Path, revision: str) -> Path:
    """Where the commit that was pulled for ``revision`` is kept."""
    return repository_folder / "dgemma" / "pins" / revision


def write_atomically(file: Path, text: str) -> None:
    """Replace ``file``: whoever reads it, also after a crash, sees the old text or the new one. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f"{file.name}.{os.getpid()}.tmp")
    fresh.write_text(text, encoding="utf-8")
    fresh.replace(file)


def _snapshot(repository: str, folder: Path, commit: str) -> Snapshot | None:
    files = folder / "snapshots" / commit
    planned = _read_object(plan_file(folder, commit)).get("files")
    if isinstance(planned, Mapping):
        needed = tuple(str(name) for name in planned)
    elif files.is_dir():
        needed = _needed(files)
    else:
        return None
    there = {entry.name for entry in _entries(files) if entry.is_file()}  # a link to nothing is no file
    return Snapshot(repository, commit, files, needed, tuple(name for name in needed if name not in there))


def _needed(folder: Path) -> tuple[str, ...]:
    """What a snapshot that another tool fetched needs to be whole, as far as its own files tell.

    One shard's name tells all of them. The index, which has megabytes, is read only where there is none.
    """
    names = [entry.name for entry in _entries(folder)]
    shard = next((match for name in names if (match := _SHARD.fullmatch(name))), None)
    if shard is not None:
        shards = [f"model-{number:05}-of-{shard[1]}.safetensors" for number in range(1, int(shard[1]) + 1)]
    elif _INDEX in names:
        weights = _read_object(folder / _INDEX).get("weight_map")
        shards = sorted({str(name) for name in weights.values()}) if isinstance(weights, Mapping) else []
    else:
        shards = sorted(name for name in names if name.endswith(".safetensors"))
    return ("config.json", "tokenizer.json", *(shards or ["model.safetensors"]))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(folder))
    except OSError:
        return []


def _read_line(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _read_object(file: Path) -> Mapping[str, Any]:
    try:
        parsed = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return parsed if isinstance(parsed, dict) else {}
