"""A server started in the background, and what it tells of its start to whoever started it. Standard library only."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from dgemma_cli.errors import DgemmaError

Progress = Callable[[int, int], None]

LOG_BYTES = 1_000_000  # of the file with what servers say


class Report:
    """The server's side: a line of JSON for every piece of news, to a pipe; nowhere without one."""

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._told = -1

    def progress(self, done: int, total: int) -> None:
        """Bytes loaded, and in all."""
        percent = 100 * done // max(1, total)
        if percent != self._told:
            self._told = percent
            self._tell({"done": done, "total": total})

    def ready(self, path: Path) -> None:
        """Requests are taken at the socket ``path``. The last news."""
        self._tell({"ready": str(path)})
        self.close()

    def failed(self, error: DgemmaError) -> None:
        """It will not start. The last news."""
        self._tell({"error": error.message, "hint": error.hint, "exit": error.exit_code})
        self.close()

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _tell(self, news: dict[str, Any]) -> None:
        if self._descriptor is None:
            return
        try:
            os.write(self._descriptor, json.dumps(news).encode() + b"\n")
        except OSError:  # nobody waits any more; the server goes on all the same
            self.close()


class BoundedLog(logging.StreamHandler[Any]):
    """Writes to standard error, which is a file opened for appending; emptied first once it has more than ``most``
    bytes. Several processes may have the same file.
    """

    def __init__(self, most: int = LOG_BYTES) -> None:
        super().__init__(sys.stderr)
        self._most = most
        self.setFormatter(logging.Formatter("%(asctime)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        descriptor = self.stream.fileno()
        if os.fstat(descriptor).st_size > self._most:
            os.ftruncate(descriptor, 0)
        super().emit(record)


def _opened(log: Path) -> BinaryIO:
    """The log, to append to. One that has grown large becomes ``log.1``, in place of the one before."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(f"{log}.1")
    return log.open("ab")


def start(arguments: Sequence[str], log: Path, progress: Progress | None) -> Path:
    """Start ``dgemma serve`` with ``arguments`` in a session of its own, and wait until it takes requests.

    log: a file that gets what it says, and is kept to ``LOG_BYTES`` or so, as is the one before it. progress: bytes
    loaded and in all. Returns its socket. Raises what it raised.
    """
    reading, writing = os.pipe()
    command = [sys.executable, "-P", "-m", "dgemma_cli", "serve", *arguments, "--report-to", str(writing)]
    with _opened(log) as said:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            pass_fds=[writing],
            start_new_session=True,  # neither Ctrl-C nor the terminal's end is meant for it
        )
    os.close(writing)
    try:
        with os.fdopen(reading, "rb") as news:
            for line in news:
                found = json.loads(line)
                if "ready" in found:
                    process.returncode = 0  # it lives on; nobody is to wait for it
                    return Path(found["ready"])
                if "error" in found:
                    raise _error(found)
                if progress is not None:
                    progress(found["done"], found["total"])
    except BaseException:
        process.kill()
        process.wait()
        raise
    code = process.wait()
    last = log.read_text(errors="replace").strip().splitlines()[-1:]
    raise DgemmaError(f"The server ended while it started (exit code {code}).", "\n".join([*last, f"See {log}"]))


def _error(found: dict[str, Any]) -> DgemmaError:
    error = DgemmaError(found["error"], found["hint"])
    error.exit_code = found["exit"]
    return error
