"""The settings file, config.toml: where it lies, what it says, how a line of it is changed. Knows of no command."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import platformdirs

from dgemma_cli.errors import DiskError, UsageError

Value: TypeAlias = str | int | float | bool


def config_file(variables: Mapping[str, str]) -> Path:
    """DGEMMA_CONFIG, or config.toml in the platform's place for settings. It need not exist."""
    named = variables.get("DGEMMA_CONFIG")
    return Path(named) if named else platformdirs.user_config_path("dgemma") / "config.toml"


def read(file: Path) -> dict[str, Any]:
    """What ``file`` says; nothing if it does not exist. Raises UsageError if it cannot be read or is no TOML."""
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise UsageError(f"The settings in {file} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no TOML: {error}.", "Mend the line, or take the file away.") from None


def holds(file: Path, key: str) -> bool:
    """Whether ``key`` ("preset", or "chat.preset") stands in ``file``. Raises UsageError as ``read`` does."""
    table, _, name = key.rpartition(".")
    place = read(file).get(table) if table else read(file)
    return isinstance(place, Mapping) and name in place


def change(file: Path, key: str, value: Value | None) -> None:
    """Set ``key`` ("preset", or "chat.preset" for one command) in ``file``, or take it out (None). The rest of the
    file stays as it is, comments too; nobody ever sees half of it. Raises UsageError or DiskError.
    """
    import tomlkit
    from tomlkit.items import Table

    if file.exists() and not file.is_file():  # a device, say: replacing it would be a disaster
        raise DiskError(f"The settings cannot be written: {file} is no file.")
    read(file)  # a file that is broken is not made worse
    table, _, name = key.rpartition(".")
    try:
        document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
        place: Any = document
        if table:
            if not isinstance(document.get(table), Table):
                if value is None:
                    return
                document[table] = tomlkit.table()
            place = document[table]
        if value is None:
            place.pop(name, None)
            if table and not place:
                document.pop(table)
        elif table or name in document or not any(isinstance(item, Table) for item in document.values()):
            place[name] = value
        else:  # a line of its own behind a table would belong to that table
            text = tomlkit.dumps(document)
            document = tomlkit.parse(f"{name} = {tomlkit.item(value).as_string()}\n{text}")
        _write(file, tomlkit.dumps(document))
    except OSError as error:
        raise DiskError(f"The settings in {file} cannot be written: {error.strerror}.") from None


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file = file.resolve()  # a link stays a link
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=".config-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
        Path(name).replace(file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
