"""What was found out on this machine, in small JSON files of the user's cache folder. Imports no torch.

Each file is an object: a key that says what an entry hangs on, and the entry. Whoever deletes a file has it found out
again.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import platformdirs

COMPARISONS, TILES = "kernels.json", "tiles.json"


def read(name: str) -> dict[str, Any]:
    """Nothing if there is no such file, or it is no good."""
    try:
        found = json.loads(_file(name).read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remember(name: str, key: str, entry: object) -> bool:
    """Beside what is there. Whether it could be written: where not, it is found out again next time."""
    return _write(name, read(name) | {key: entry})


def forget(name: str, key: str) -> None:
    """One entry."""
    _write(name, {other: entry for other, entry in read(name).items() if other != key})


def clear(name: str) -> int:
    """All entries: how many there were. Raises OSError if the file cannot be removed."""
    count = len(read(name))
    _file(name).unlink(missing_ok=True)
    return count


def _file(name: str) -> Path:
    return platformdirs.user_cache_path("dgemma") / name


def _write(name: str, entries: dict[str, Any]) -> bool:
    """All of it or nothing."""
    file = _file(name)
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        descriptor, new_name = tempfile.mkstemp(dir=file.parent)
        with os.fdopen(descriptor, "w") as new:
            json.dump(entries, new, indent=1)
        Path(new_name).replace(file)
        return True
    return False
