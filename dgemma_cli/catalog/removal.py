"""Taking models out of the cache, and no byte that something else still uses."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dgemma_cli.catalog import cache
from dgemma_cli.catalog.inventory import is_diffusion_gemma
from dgemma_cli.catalog.names import Reference, near_names
from dgemma_cli.errors import DiskError, ModelUnavailable


@dataclass(frozen=True, slots=True)
class Removal:
    """What would go: one commit of a repository, or all of it (commit None). size: its bytes, shared ones included."""

    repository: str
    commit: str | None
    folder: Path
    size: int
    cache: Path


def plan_removal(references: list[Reference], pinned: bool, cache_folder: Path | None = None) -> Removal:
    """What removing the first of ``references`` that is here would take. pinned: the user named a revision, so only
    that one is meant. Raises ModelUnavailable if none of them is here.
    """
    root = (cache_folder or cache.root()).expanduser().absolute()
    for reference in references:
        folder = cache.repository_folder(reference.repository, root)
        if pinned:
            snapshot = cache.find(reference.repository, reference.revision, root)
            if snapshot is not None and _is_ours(reference.repository, root):
                size = sum(file.stat().st_size for file in snapshot.folder.glob("*") if file.exists())
                return Removal(reference.repository, snapshot.commit, snapshot.folder, size, root)
        elif folder.is_dir() and _is_ours(reference.repository, root):
            return Removal(reference.repository, None, folder, _bytes(folder), root)
    asked = references[0]
    here = cache.repositories(root)
    if asked.repository in here and not _is_ours(asked.repository, root):
        raise ModelUnavailable(f"{asked.repository} is no DiffusionGemma.", "For other models: hf cache rm")
    near = near_names(asked.repository, here)
    hint = f"Did you mean {' or '.join(near)}?" if near else "See what is here: dgemma list"
    raise ModelUnavailable(f"{asked.name} is not downloaded.", hint)


def remove(removal: Removal) -> int:
    """Carry it out. Returns the bytes freed: content that another commit or repository shares stays.

    Raises DiskError if something cannot be deleted.
    """
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # type: ignore[no-untyped-call]  # what cannot be deleted is told below
    folder = cache.repository_folder(removal.repository, removal.cache)
    store = removal.cache / "blobs"  # where huggingface_hub keeps content that repositories share
    before = _bytes(folder) + _bytes(store)
    scanned = scan_cache_dir(removal.cache)
    known = [repo for repo in scanned.repos if repo.repo_path == folder.resolve()]
    commits = {revision.commit_hash for repo in known for revision in repo.revisions}
    wanted = commits if removal.commit is None else commits & {removal.commit}
    if wanted:
        scanned.delete_revisions(*wanted).execute()
    if removal.commit is None or not _any_left(folder):  # also what was damaged, or hardly begun
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(removal.cache / ".locks" / folder.name, ignore_errors=True)
    else:
        _forget(folder, removal.commit)
    gone = not folder.exists() if removal.commit is None else not (folder / "snapshots" / removal.commit).exists()
    if not gone:
        raise DiskError(f"{removal.folder} cannot be deleted.", "Do you own it? Its folder must be writable.")
    return before - _bytes(folder) - _bytes(store)


def _is_ours(repository: str, root: Path) -> bool:
    """The cache is shared with other tools: only DiffusionGemmas, and pulls that were begun, are ours to remove."""
    if (cache.repository_folder(repository, root) / "dgemma").is_dir():
        return True
    return any(is_diffusion_gemma(snapshot.folder) for snapshot in cache.snapshots(repository, root))


def _any_left(folder: Path) -> bool:
    return any((folder / "snapshots").glob("*"))


def _forget(folder: Path, commit: str) -> None:
    """Drop our records of a commit."""
    cache.plan_file(folder, commit).unlink(missing_ok=True)
    for pin in (folder / "dgemma" / "pins").glob("**/*"):
        if pin.is_file() and pin.read_text(encoding="utf-8").strip() == commit:
            pin.unlink()


def _bytes(folder: Path) -> int:
    """Bytes of the files in ``folder`` itself; links count nothing."""
    total = 0
    for directory, _, files in os.walk(folder):
        for name in files:
            path = Path(directory) / name
            with suppress(OSError):
                total += 0 if path.is_symlink() else path.stat().st_size
    return total
