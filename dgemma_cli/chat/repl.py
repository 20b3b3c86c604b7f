"""The loop of a chat: read a line, do what it says, again. Only leaving ends it."""

from __future__ import annotations

import traceback
from typing import Protocol

from dgemma_cli.chat.chat import Chat, Draft
from dgemma_cli.chat.slash import obey
from dgemma_cli.errors import DgemmaError
from dgemma_cli.terminal.cancel import Cancelled
from dgemma_cli.terminal.environment import Environment, OutputClosed
from dgemma_cli.terminal.interrupts import Interrupted
from dgemma_cli.terminal.line_editor import unquoted


class Reader(Protocol):
    """Where lines come from: ``terminal.line_editor.LineEditor``."""

    def read(self, text: str = "", editor: bool = False) -> str: ...


def repeat(chat: Chat, reader: Reader, debug: bool) -> None:
    """Chat until the user leaves. Failures are told, and the chat goes on. debug: with their tracebacks.

    Raises Interrupted if a signal ends the process.
    """
    interrupted = False  # at the prompt, just now
    with chat.cancellation.installed():
        while not chat.leaving:
            try:
                line = reader.read(chat.draft.text, chat.draft.editor)
            except Interrupted:
                raise
            except KeyboardInterrupt:
                chat.draft = Draft()
                if interrupted:
                    chat.note("Ctrl-D or /exit leaves")
                interrupted = True
                continue
            except EOFError:
                return
            interrupted = False
            carried = chat.draft = Draft(replaces=chat.draft.replaces)
            try:
                _do(chat, line)
            except Cancelled:
                chat.note("cancelled")
            except OutputClosed:
                raise
            except Exception as error:
                _tell(chat.environment, error, chat.color)
                if debug:
                    traceback.print_exception(error)
            if chat.draft is carried:
                chat.draft = Draft()


def _do(chat: Chat, line: str) -> None:
    quoted = unquoted(line)
    text = line if quoted is None else quoted
    if not text.strip():
        return
    if quoted is None:
        obey(chat, line.strip())
    else:
        chat.ask(quoted)


def _tell(environment: Environment, error: Exception, color: bool) -> None:
    if not isinstance(error, DgemmaError):
        error = DgemmaError(
            f"unexpected failure: {type(error).__name__}: {' '.join(str(error).split())}",
            "The conversation is whole. See where it happened with: dgemma chat --debug",
        )
    label = "\x1b[1;31merror:\x1b[0m" if color else "error:"
    environment.say(f"{label} {error.message}")
    for line in error.hint.splitlines():
        environment.say(f"  {line}")
