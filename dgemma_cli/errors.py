"""Every failure a user can meet: one line of message, a hint, an exit code. ``__main__.main`` prints them."""

from __future__ import annotations


class DgemmaError(Exception):
    """A failure with something to say.

    message: one line, in the user's words. hint: what to do about it, one to three commands or sentences
    (may have several lines; empty if there is nothing to do).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(DgemmaError):
    """The command line, the prompt or an option's value is wrong."""

    exit_code = 2


class ModelUnavailable(DgemmaError):
    """The model is not there: not downloaded, unknown, gated, offline, incomplete."""

    exit_code = 3


class CheckpointError(ModelUnavailable):
    """The model's files are there but wrong: corrupt, a tensor or key missing, left over or misshapen."""


class NoDevice(DgemmaError):
    """The device asked for (or any usable device) is not there."""

    exit_code = 4


class OutOfMemory(DgemmaError):
    """The model does not fit in memory, or ran out of it."""

    exit_code = 5


class DiskError(DgemmaError):
    """Not enough room on disk, or a file cannot be written."""

    exit_code = 6


class NetworkError(DgemmaError):
    """The network or the Hub failed."""

    exit_code = 7
