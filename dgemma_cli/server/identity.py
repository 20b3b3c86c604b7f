"""What a server is, as it says itself, and whether that is what a command needs. Standard library only."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from dgemma_cli import __version__
from dgemma_cli.fit import Fit, written

# Variables that may change what is computed.
_DECISIVE = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "DGEMMA_KERNELS")
_FILES = ("*.json", "*.jinja", "*.safetensors")


@dataclass(frozen=True, slots=True)
class Identity:
    """A server's model, and the program that runs it.

    folder: of the model; fingerprint: of its files when they were loaded. auto_device, auto_dtype: this is what "auto"
    means here. fit: the --fit it was asked for; fitted: what was changed for that. room: tokens a prompt may have;
    context: with the reply; limited: it takes less than that. settings: the decisive variables.
    """

    name: str
    folder: str
    fingerprint: str
    device: str
    dtype: str
    auto_device: bool
    auto_dtype: bool
    fit: str
    fitted: str
    room: int
    context: int
    limited: bool
    pid: int
    version: str
    prefix: str
    settings: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)

    @classmethod
    def read(cls, found: Any) -> Identity:
        """From JSON. Raises ValueError if it is something else."""
        if not isinstance(found, dict):
            raise ValueError("no identity")
        try:
            return cls(**{entry.name: found[entry.name] for entry in fields(cls)})
        except KeyError as error:
            raise ValueError(f"no {error} in it") from None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a command asks for. device and dtype may be "auto"."""

    folder: Path
    device: str
    dtype: str
    fit: Fit

    def mismatch(self, found: Identity, variables: Mapping[str, str]) -> str | None:
        """Why the server ``found`` would not do just what this process would; None if it would."""
        if found.version != __version__:
            return f"it is version {found.version}"
        if found.prefix != sys.prefix:
            return f"it belongs to {found.prefix}"
        if found.folder != str(self.folder.resolve()):
            return f"it has {found.name}"
        if found.fingerprint != fingerprint(self.folder):
            return "the model's files have changed since"
        if not (found.auto_device if self.device == "auto" else _same_device(self.device, found.device)):
            return f"it computes on {found.device}"
        if not (found.auto_dtype if self.dtype == "auto" else self.dtype == found.dtype):
            return f"it computes in {found.dtype}"
        if written(self.fit) != found.fit:
            return f"it was loaded with --fit {found.fit}"
        if found.limited:
            return "it takes shorter prompts or answers than the model does"
        for name, value in decisive(variables).items():
            if found.settings.get(name, "") != value:
                return f"{name} is another there"
        return None


def _same_device(one: str, other: str) -> bool:
    return {one, other} <= {"cuda", "cuda:0"} or one == other


def decisive(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that may change what is computed; "" where one is not set."""
    return {name: variables.get(name, "") for name in _DECISIVE}


def fingerprint(folder: Path) -> str:
    """Names, sizes and times of a model's files: it changes when they do."""
    digest = hashlib.sha256()
    for file in sorted(file for pattern in _FILES for file in folder.glob(pattern)):
        found = file.stat()
        digest.update(f"{file.name}\0{found.st_size}\0{found.st_mtime_ns}\n".encode())
    return digest.hexdigest()
