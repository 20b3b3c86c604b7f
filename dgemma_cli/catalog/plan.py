"""What a pull would do: which files, how many bytes, whether the disk and the GPU's memory suffice."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from dgemma_cli.catalog import cache
from dgemma_cli.catalog.headers import WeightBytes, weigh
from dgemma_cli.catalog.hub import RemoteFile, list_files, read
from dgemma_cli.catalog.names import Reference
from dgemma_cli.catalog.selection import select
from dgemma_cli.errors import CheckpointError, DiskError
from dgemma_cli.model.config import ModelConfig
from dgemma_cli.units import size
from dgemma_cli.weights.scheme import Scheme, read_scheme

_SPARE = 64 * 1024 * 1024  # bytes of the disk to leave free


@dataclass(frozen=True, slots=True)
class Plan:
    """A pull, settled before its first byte of weights.

    files: all that are needed; here: the names of those on disk; partial: bytes that an interrupted pull left of the
    others; weights: what the model takes in memory; config, scheme: what config.json says; disk_free: bytes.
    """

    reference: Reference
    commit: str
    cache: Path
    files: tuple[RemoteFile, ...]
    here: frozenset[str]
    partial: int
    weights: WeightBytes
    config: ModelConfig
    scheme: Scheme
    disk_free: int

    @property
    def folder(self) -> Path:
        """The repository's folder in the cache."""
        return cache.repository_folder(self.reference.repository, self.cache)

    @property
    def snapshot(self) -> Path:
        """Where the files can be read."""
        return self.folder / "snapshots" / self.commit

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def to_fetch(self) -> int:
        """Bytes that must still come."""
        return sum(file.size for file in self.files if file.name not in self.here) - self.partial

    def blob(self, file: RemoteFile) -> Path:
        """Where a file's content is kept, shared by all commits that have it."""
        return self.folder / "blobs" / file.digest

    def incomplete(self, file: RemoteFile) -> Path:
        """What has come of a file so far."""
        return self.folder / "blobs" / f"{file.digest}.incomplete"

    def check_disk(self) -> None:
        """Raise DiskError unless what must still come fits on the disk."""
        needed = self.to_fetch + _SPARE if self.to_fetch else 0
        if needed > self.disk_free:
            raise DiskError(
                f"{self.reference.name} needs {size(needed)} of disk, {size(self.disk_free)} are free in {self.cache}.",
                "Make room (dgemma list, dgemma rm), or name another folder: --cache-dir, or HF_HOME.",
            )


def make_plan(reference: Reference, cache_folder: Path | None = None) -> Plan:
    """Ask the Hub and look at the disk. Fetches config.json and headers of weights, at most 5 MB; writes nothing.

    Raises ModelUnavailable, CheckpointError (it is no DiffusionGemma), NetworkError.
    """
    root = (cache_folder or cache.root()).expanduser().absolute()
    listing = list_files(reference)
    files = select(listing)
    folder = cache.repository_folder(reference.repository, root)
    snapshot = folder / "snapshots" / listing.commit
    paths = {file.name: path for file in files if (path := _whole(file, snapshot, folder)) is not None}
    config, scheme = _read_config(reference, listing.commit, files[0], snapshot, paths.get(files[0].name))
    partial = 0
    for file in files:
        left = folder / "blobs" / f"{file.digest}.incomplete"
        if file.name not in paths and left.exists():
            partial += min(left.stat().st_size, file.size)
    weights = [file for file in files if file.name.endswith(".safetensors")]
    return Plan(
        reference=reference,
        commit=listing.commit,
        cache=root,
        files=files,
        here=frozenset(paths),
        partial=partial,
        weights=weigh(reference, listing.commit, weights, paths),
        config=config,
        scheme=scheme,
        disk_free=_free(root),
    )


def _whole(file: RemoteFile, snapshot: Path, folder: Path) -> Path | None:
    """Where a file of the right size lies: in the snapshot, or as a blob that another commit or tool left."""
    for path in (snapshot / file.name, folder / "blobs" / file.digest):
        if path.exists() and path.stat().st_size == file.size:
            return path
    return None


def _read_config(
    reference: Reference, commit: str, file: RemoteFile, snapshot: Path, here: Path | None
) -> tuple[ModelConfig, Scheme]:
    """Refuse what is no DiffusionGemma, or is packed in an unknown way, before its weights are fetched."""
    data = here.read_bytes() if here else read(reference, commit, file.name, 0, file.size)
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise CheckpointError(f"{reference.repository}: config.json is not a JSON object.")
    try:
        return ModelConfig.from_dict(config), read_scheme(snapshot, config)
    except CheckpointError as error:
        raise CheckpointError(f"{reference.repository}: {error.message}", error.hint) from None


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
