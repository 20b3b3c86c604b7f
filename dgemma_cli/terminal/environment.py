"""The streams and settings a command meets: which are terminals, what they can show. Tests bring their own."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import BinaryIO

from dgemma_cli.errors import DiskError
from dgemma_cli.terminal.untrusted import visible


class OutputFull(DiskError):
    """Standard output takes no more; what its buffer holds is lost."""


class OutputClosed(Exception):
    """Whoever read standard output has gone (``| head -1``): stop quietly."""


@dataclass(frozen=True, slots=True)
class Environment:
    """The outside of one command: three byte streams, what they are, and the environment variables.

    encoding: of the terminal. Pipes and files always get UTF-8.
    """

    stdin: BinaryIO
    stdout: BinaryIO
    stderr: BinaryIO
    stdin_is_terminal: bool
    stdout_is_terminal: bool
    stderr_is_terminal: bool
    stdout_is_pipe: bool
    encoding: str
    variables: Mapping[str, str]

    @classmethod
    def current(cls) -> Environment:
        """The process's own. A closed stream (``<&-``) counts as empty."""
        stdin, stdout, stderr = (
            getattr(stream, "buffer", None) or io.BytesIO() for stream in (sys.stdin, sys.stdout, sys.stderr)
        )
        terminal = [is_terminal(stream) for stream in (stdin, stdout, stderr)]
        encoding = (sys.stderr if terminal[2] else sys.stdout) or sys.stderr
        return cls(
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            stdin_is_terminal=terminal[0],
            stdout_is_terminal=terminal[1],
            stderr_is_terminal=terminal[2],
            stdout_is_pipe=_is_pipe(stdout),
            encoding=getattr(encoding, "encoding", None) or "utf-8",
            variables=os.environ,
        )

    @property
    def dumb(self) -> bool:
        """The terminal understands no escape sequences."""
        return self.variables.get("TERM", "") in ("dumb", "unknown", "")

    @property
    def unicode(self) -> bool:
        """The terminal's locale can show any character."""
        return self.encoding.lower().replace("-", "").replace("_", "") in ("utf8", "utf8sig")

    @property
    def interactive(self) -> bool:
        """Somebody types, and sees what is written."""
        return self.stdin_is_terminal and self.stdout_is_terminal

    def color(self, no_color: bool = False) -> bool:
        """Whether standard error may carry colour: ``--no-color``, NO_COLOR, FORCE_COLOR, TERM, in that order."""
        if no_color or self.variables.get("NO_COLOR"):
            return False
        if self.variables.get("FORCE_COLOR", "0") not in ("", "0"):
            return True
        return self.stderr_is_terminal and not self.dumb

    def write(self, text: str) -> None:
        """Write to standard output at once.

        Raises OutputClosed if its reader has gone, DiskError if it cannot take more.
        """
        try:
            terminal = self.stdout_is_terminal
            self.stdout.write(self.encode_for_terminal(text) if terminal else text.encode(errors="replace"))
            self.stdout.flush()
        except BrokenPipeError:
            raise OutputClosed from None
        except OSError as error:
            raise OutputFull(f"Standard output cannot be written: {error.strerror}.") from None

    def say(self, text: str, dim: bool = False) -> None:
        """Write a line to standard error. A standard error that is gone is no reason to stop."""
        self._to_stderr(self._dimmed(text) + "\n" if dim else text + "\n")

    def whisper(self, text: str) -> None:
        """Write model text to standard error, dim and made safe where that is a terminal; no newline is added."""
        self._to_stderr(self._dimmed(visible(text)) if self.stderr_is_terminal else text)

    def encode_for_terminal(self, text: str) -> bytes:
        """Bytes of ``text`` in the terminal's encoding, with ``?`` for what it lacks."""
        return text.encode(self.encoding, errors="replace")

    def _dimmed(self, text: str) -> str:
        if not self.stderr_is_terminal or self.dumb:
            return text
        return "\n".join(f"\x1b[2m{line}\x1b[0m" if line else "" for line in text.split("\n"))

    def _to_stderr(self, text: str) -> None:
        data = self.encode_for_terminal(text) if self.stderr_is_terminal else text.encode(errors="replace")
        try:
            self.stderr.write(data)
            self.stderr.flush()
        except OSError:
            pass


def is_terminal(stream: BinaryIO) -> bool:
    """Whether ``stream`` is an open terminal."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def _is_pipe(stream: BinaryIO) -> bool:
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
