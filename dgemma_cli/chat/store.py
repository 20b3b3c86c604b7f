"""Conversations on disk, a file each, written as they happen. Nobody but their owner can read them."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import platformdirs

from dgemma_cli.chat import records
from dgemma_cli.chat.dialogue import Dialogue
from dgemma_cli.chat.records import Damaged, Header, Newer, Record, Story
from dgemma_cli.errors import DgemmaError, DiskError, UsageError


def state_folder(variables: Mapping[str, str]) -> Path:
    """Where dgemma keeps what it remembers: DGEMMA_STATE_DIR, or the platform's place for state."""
    named = variables.get("DGEMMA_STATE_DIR")
    return Path(named) if named else platformdirs.user_state_path("dgemma")


@dataclass(frozen=True, slots=True)
class Listed:
    """A kept conversation. damage: why it cannot be read whole; then ``dialogue`` is what can."""

    id: str
    path: Path
    changed: datetime
    header: Header | None
    dialogue: Dialogue
    damage: str | None


class Journal:
    """The file of the conversation that goes on. Each record is on disk when ``write`` returns."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    @property
    def id(self) -> str:
        return self.path.stem

    def write(self, *entries: Record) -> None:
        """Append records. Raises DiskError."""
        _append(self._descriptor, self.path, "".join(map(records.record_line, entries)))

    def close(self) -> None:
        os.close(self._descriptor)


class Store:
    """The folder of kept conversations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "chats"

    def create(self, model: str, dialogue: Dialogue) -> Journal:
        """A file for a new conversation that begins with ``dialogue``. Raises DiskError."""
        identifier = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        return self._write(Header.now(identifier, model), list(records.from_dialogue(dialogue, model)))

    def resume(self, name: str) -> tuple[Journal, Story, str | None]:
        """Go on with a kept conversation: its file, its content, and what there is to tell about it.

        A damaged file is set aside under another name, as it is, and what could be read of it is written anew. Raises
        UsageError if there is none, it cannot be read at all, or another dgemma has it open; DiskError.
        """
        path = self.find(name)
        try:
            story = _read(path)
        except Damaged as damage:
            aside = _set_aside(path)
            told = f"{path.name}: {damage.message}; the file is kept as {aside.name}"
            if damage.rescued is None:
                raise UsageError(f"{told}. Nothing of it can be read.") from None
            story = damage.rescued
            return self._write(story.header, story.records), story, f"{told}; what stands before it goes on"
        descriptor = _open(path, os.O_WRONLY | os.O_APPEND)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise UsageError(f"The conversation {path.stem} is open in another dgemma.") from None
        return Journal(path, descriptor), story, None

    def all(self) -> list[Listed]:
        """All kept conversations, the latest first. Changes nothing."""
        return sorted(map(_listed, self._paths()), key=lambda found: (found.changed, found.id), reverse=True)

    def find(self, name: str) -> Path:
        """The file of the conversation whose id begins with ``name``. Raises UsageError."""
        found = [path for path in self._paths() if path.stem.startswith(name)]
        exact = [path for path in found if path.stem == name]
        if len(exact or found) == 1 and name:
            return (exact or found)[0]
        if found and name:
            raise UsageError(f"{len(found)} conversations begin with {name}.", "See: dgemma chats list")
        raise UsageError(f"There is no conversation {name!r}.", "See: dgemma chats list")

    def latest(self) -> str:
        """Id of the conversation that changed last. Raises UsageError if there is none."""
        found = self.all()
        if not found:
            raise UsageError("There is no conversation to continue.", "Begin one: dgemma chat")
        return found[0].id

    def remove(self, path: Path) -> None:
        try:
            path.unlink()
        except OSError as error:
            raise _failed(path, error) from None

    def _paths(self) -> list[Path]:
        return list(self.folder.glob("*.jsonl"))

    def _write(self, header: Header, entries: list[Record]) -> Journal:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise _failed(self.folder, error) from None
        path = self.folder / f"{header.id}.jsonl"
        descriptor = _open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _append(descriptor, path, records.header_line(header) + "".join(map(records.record_line, entries)))
        return Journal(path, descriptor)


def write_copy(path: Path, model: str, dialogue: Dialogue, replace: bool = False) -> None:
    """Write a conversation to a file of the user's. Raises UsageError if it is there already, DiskError."""
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if replace else os.O_EXCL)
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise UsageError(f"{path} is there already.", "Name another file, or overwrite it: /save -f FILE") from None
    except OSError as error:
        raise _failed(path, error) from None
    lines = [records.header_line(Header.now(path.stem, model))]
    lines += map(records.record_line, records.from_dialogue(dialogue, model))
    try:
        _append(descriptor, path, "".join(lines))
    finally:
        os.close(descriptor)


def read_copy(path: Path) -> Story:
    """Read a conversation from a file of the user's, which is left alone whatever it holds. Raises UsageError."""
    try:
        return _read(path)
    except Damaged as damage:
        raise UsageError(f"{path} is no whole conversation: {damage.message}.") from None


def _read(path: Path) -> Story:
    try:
        return records.parse(path.read_bytes())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except Newer as error:
        raise UsageError(f"{path} cannot be read: {error.message}.", error.hint) from None


def _listed(path: Path) -> Listed:
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    try:
        story = records.parse(path.read_bytes())
    except Damaged as damage:
        rescued = damage.rescued
        header, dialogue = (rescued.header, rescued.dialogue) if rescued else (None, Dialogue())
        return Listed(path.stem, path, changed, header, dialogue, damage.message)
    except (OSError, DgemmaError) as error:
        return Listed(path.stem, path, changed, None, Dialogue(), str(error))
    return Listed(path.stem, path, changed, story.header, story.dialogue, None)


def _set_aside(path: Path) -> Path:
    """Rename a file so that nothing takes it for a conversation and nothing overwrites it."""
    number = 1
    while (aside := path.with_name(f"{path.stem}.damaged-{number}")).exists():
        number += 1
    try:
        path.rename(aside)
    except OSError as error:
        raise _failed(path, error) from None
    return aside


def _open(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _failed(path, error) from None


def _append(descriptor: int, path: Path, text: str) -> None:
    data = text.encode()
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError as error:
        raise _failed(path, error) from None


def _failed(path: Path, error: OSError) -> DiskError:
    return DiskError(f"{path} cannot be written: {error.strerror}.")
