"""What servers made up say that they are."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dgemma_cli import __version__
from dgemma_cli.server.identity import Identity, decisive, fingerprint


def identity(folder: Path, variables: Mapping[str, str], **other: Any) -> Identity:
    """Of a server that has the model in ``folder`` on the CPU, as "auto" would have it."""
    usual: dict[str, Any] = {
        "name": "nano",
        "folder": str(folder.resolve()),
        "fingerprint": fingerprint(folder),
        "device": "cpu",
        "dtype": "float32",
        "auto_device": True,
        "auto_dtype": True,
        "fit": "auto",
        "fitted": "as stored",
        "room": 10,
        "context": 20,
        "limited": False,
        "pid": 1,
        "version": __version__,
        "prefix": sys.prefix,
        "settings": decisive(variables),
    }
    return Identity(**usual | other)
