"""What results of kernels hang on, made a key: if any of it changes, they are found out anew."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch

import dgemma_cli


def key_of(device: torch.device, code: tuple[str, ...], *parts: object) -> str:
    """Of the card, the versions, the package's folders named in ``code``, and ``parts``, by how they are written."""
    digest = hashlib.sha256()
    package = Path(dgemma_cli.__file__).parent
    for folder in code:
        for file in sorted((package / folder).glob("*.py")):
            digest.update(file.read_bytes())
    versions = torch.__version__, torch.version.cuda, triton_version()
    for part in (versions, card(device), *parts):
        digest.update(repr(part).encode())
    return digest.hexdigest()


def card(device: torch.device) -> tuple[object, ...]:
    """The GPU's name and compute capability; nothing for a CPU."""
    if device.type != "cuda":
        return ()
    return torch.cuda.get_device_name(device), torch.cuda.get_device_capability(device)


def triton_version() -> str | None:
    if find_spec("triton") is None:
        return None
    import triton

    return str(triton.__version__)
