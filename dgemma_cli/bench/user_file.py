"""Reading a text file that the user named."""

from __future__ import annotations

from pathlib import Path

from dgemma_cli.errors import UsageError


def read_text(path: Path) -> str:
    """Its whole text, without a byte order mark. Raises UsageError."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not valid UTF-8.") from None
