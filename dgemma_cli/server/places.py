"""Where servers of this user are found: sockets in the runtime directory, one a server. Standard library only."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from dgemma_cli.errors import DgemmaError, DiskError, UsageError

_SUFFIX = ".sock"
_LONGEST = 100  # bytes of a socket's path; systems take 104 or 108


def runtime_folder(variables: Mapping[str, str]) -> Path:
    """DGEMMA_RUNTIME_DIR; dgemma in XDG_RUNTIME_DIR; or a folder of this user's among the temporary files. It need not
    exist.
    """
    named, session = variables.get("DGEMMA_RUNTIME_DIR"), variables.get("XDG_RUNTIME_DIR")
    if named:
        return Path(named)
    # Directly in the temporary folder, where nobody else may rename it.
    return Path(session) / "dgemma" if session else Path(tempfile.gettempdir()) / f"dgemma-{os.getuid()}"


def own_folder(folder: Path) -> Path:
    """``folder``, made if it is missing, for this user alone.

    Raises DiskError, or DgemmaError if it is another user's or open to others: who can write there can stand in for a
    server and read the prompts.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise DiskError(f"{folder} cannot be made: {error.strerror}.", "Set DGEMMA_RUNTIME_DIR.") from None
    if not _is_own(found):
        raise DgemmaError(
            f"{folder} is open to other users, so no server is kept or looked for there.",
            f"chmod 700 {folder}\nor set DGEMMA_RUNTIME_DIR to a folder of your own",
        )
    return folder


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid == os.getuid() and not found.st_mode & 0o077


def sockets(folder: Path) -> list[Path]:
    """The sockets of servers that run, or ran. None where the folder is not this user's alone."""
    try:
        if not _is_own(folder.lstat()):
            return []
        return sorted(folder.glob(f"*{_SUFFIX}"))
    except OSError:
        return []


def check_free(path: Path) -> None:
    """Raises UsageError if there can be no socket at ``path``: too long, taken by a file or by a server that runs."""
    if len(os.fsencode(path)) > _LONGEST:
        raise UsageError(f"The socket's path has more than {_LONGEST} bytes: {path}", "Take a shorter one.")
    if path.exists():
        if not path.is_socket():
            raise UsageError(f"{path} is there already, and no socket.")
        if is_alive(path):
            raise UsageError(f"A server listens at {path} already.", "dgemma ps")


def listen(path: Path) -> socket.socket:
    """A socket at ``path`` that only this user can reach (0600), listening. One that nobody listens at is replaced.

    Raises UsageError as ``check_free`` does, DiskError if it cannot be made.
    """
    check_free(path)
    # Bound under another name first: whoever finds a socket at `path` finds somebody who listens.
    hidden = path.with_name(f".{secrets.token_hex(4)}")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o177)
        try:
            listening.bind(str(hidden))
        finally:
            os.umask(before)
        listening.listen(128)
        hidden.rename(path)
    except OSError as error:
        listening.close()
        hidden.unlink(missing_ok=True)
        raise DiskError(f"No socket can be made at {path}: {error.strerror}.") from None
    return listening


def is_alive(path: Path) -> bool:
    """Whether somebody listens at the socket ``path``."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as trial:
        trial.settimeout(1.0)
        try:
            trial.connect(str(path))
        except BlockingIOError:  # its queue is full
            return True
        except TimeoutError:
            return True
        except OSError:
            return False
    return True


def sweep(path: Path) -> None:
    """Take a socket away at which nobody listens any more."""
    if path.is_socket() and not is_alive(path):
        path.unlink(missing_ok=True)


@contextmanager
def lock(path: Path) -> Iterator[None]:
    """Hold a lock file while the block runs, waiting for whoever holds it. Raises DiskError."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise DiskError(f"{path} cannot be written: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
