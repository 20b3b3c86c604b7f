"""The ``dgemma`` command: runs it and turns whatever goes wrong into one line and an exit code."""

from __future__ import annotations

import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from dgemma_cli.errors import DgemmaError, DiskError, OutOfMemory, UsageError
from dgemma_cli.terminal.environment import Environment, OutputClosed, OutputFull
from dgemma_cli.terminal.interrupts import INTERRUPTS, Interrupted

_CLOSED_PIPE = 141  # as a shell reports a program that SIGPIPE ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``dgemma`` with the process's arguments, or these. Returns the exit code; errors are on standard error."""
    INTERRUPTS.install()
    environment = Environment.current()
    if not debugging():
        warnings.simplefilter("ignore")  # of libraries, to their developers
    try:
        code = _run(arguments)
        _flush()
        return code
    except Interrupted as interrupted:
        return interrupted.exit_code
    except OutputClosed:
        _silence()
        return _CLOSED_PIPE
    except Exception as error:
        if INTERRUPTS.received is not None:  # a library turned the interrupt into an error of its own
            return 128 + INTERRUPTS.received
        if debugging():
            traceback.print_exc()
        return report(error, environment)


def _run(arguments: Sequence[str] | None) -> int:
    from typer.main import get_command

    from dgemma_cli.commands.app import app

    tree = get_command(app)
    given = sys.argv[1:] if arguments is None else list(arguments)
    if shell := os.environ.get("_DGEMMA_COMPLETE"):  # a TAB, see commands/shells.py
        return _complete(shell, tree, given)
    try:
        returned = tree.main(args=given, prog_name="dgemma", standalone_mode=False, default_map=_settings(tree, given))
    except SystemExit as leave:  # Typer's answer to a closed pipe
        _silence()
        return leave.code if isinstance(leave.code, int) else 1
    if INTERRUPTS.received is not None:  # Typer knows of one exit code for interrupts only
        return 128 + INTERRUPTS.received
    return returned if isinstance(returned, int) else 0


def _complete(shell: str, tree: Any, words: list[str]) -> int:
    from dgemma_cli.commands.shells import written
    from dgemma_cli.commands.tab import offers

    sys.stdout.write(written(shell, offers(tree, words)))
    return 0


def _settings(tree: Any, arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The defaults that the settings file lays down. Help and ``config`` work with a broken file too."""
    if not arguments or arguments[0] == "config":
        return {}
    if any(flag in arguments for flag in ("-h", "--help", "--version")):
        return {}
    from dgemma_cli import settings
    from dgemma_cli.commands.defaults import default_map

    file = settings.config_file(os.environ)
    values = settings.read(file)
    return default_map(tree, values, file) if values else {}


def report(error: Exception, environment: Environment) -> int:
    """Print ``error`` as a line and a hint on standard error. Returns its exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # Typer's: its message is the help of a group of commands
        environment.say(str(error))
        return UsageError.exit_code
    found = _explained(error)
    label = "\x1b[1;31merror:\x1b[0m" if environment.color() else "error:"
    environment.say(f"{label} {found.message}")
    for line in found.hint.splitlines():
        environment.say(f"  {line}")
    if isinstance(error, OSError | OutputFull):
        _silence()
    return found.exit_code


def _explained(error: Exception) -> DgemmaError:
    from typer.exceptions import TyperException

    if isinstance(error, DgemmaError):
        return error
    if isinstance(error, TyperException):
        return _usage(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return OutOfMemory("The memory is exhausted.", "Use a smaller model, a shorter prompt, or another --device.")
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return DiskError(f"No space is left on the device{f' of {error.filename}' if error.filename else ''}.")
    kind = type(error)
    hint = "Run it again with --debug to see where it happened."
    if kind.__module__.partition(".")[0] == "triton":
        hint += "\nWithout Triton's kernels, slower: DGEMMA_KERNELS=reference"
    return DgemmaError(f"unexpected failure: {kind.__name__}: {' '.join(str(error).split())}", hint)


def _usage(error: Exception) -> DgemmaError:
    """Typer's complaint about the command line, in our form."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "dgemma"
    message = " ".join(error.format_message().split())  # type: ignore[attr-defined]
    message = re.sub(r"Value error, |, unable to (parse|interpret) .*", "", message)  # pydantic's manner of speaking
    example = context.command.epilog if context is not None and message.startswith("Missing argument") else None
    found = DgemmaError(message, "\n".join(filter(None, (example, f"See: {command} --help"))))
    found.exit_code = getattr(error, "exit_code", 2)
    return found


def _flush() -> None:
    """Let a full disk or a closed pipe behind standard output be known while it can still be told."""
    if sys.stdout is None or sys.stdout.closed:
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosed from None
    except OSError as error:
        raise OutputFull(f"Standard output cannot be written: {error.strerror}.") from None


def _silence() -> None:
    """Point standard output nowhere, so that Python's last flush finds nothing to complain of."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError, AttributeError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def debugging() -> bool:
    """``--debug`` was given, or DGEMMA_DEBUG is set."""
    return os.environ.get("DGEMMA_DEBUG", "0") not in ("", "0")


if __name__ == "__main__":
    sys.exit(main())
