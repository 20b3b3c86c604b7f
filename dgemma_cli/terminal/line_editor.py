"""The prompt of a chat: a line editor with history, completion and several lines."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, History, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent
from prompt_toolkit.output import ColorDepth

QUOTES = '"""'

Complete = Callable[[str], Iterable[tuple[str, int]]]


class LineEditor:
    """Reads what the user types. complete: for the text before the cursor, the continuations and how many characters
    before the cursor each replaces.
    """

    def __init__(self, history: History, complete: Complete, color: bool) -> None:
        self._session: PromptSession[str] = PromptSession(
            "> ",
            multiline=True,
            prompt_continuation="  ",
            history=history,
            completer=_Completer(complete),
            complete_while_typing=False,
            key_bindings=_bindings(),
            enable_open_in_editor=False,
            enable_suspend=True,
            color_depth=None if color else ColorDepth.DEPTH_1_BIT,
        )

    def read(self, text: str = "", editor: bool = False) -> str:
        """What the user sends; text: what is there to begin with; editor: opened in $EDITOR at once.

        Raises KeyboardInterrupt for Ctrl-C, EOFError for Ctrl-D on an empty line or a terminal that has gone.
        """

        def open_editor() -> None:
            get_app().current_buffer.open_in_editor()

        return self._session.prompt(default=text, pre_run=open_editor if editor else None)


def unquoted(text: str) -> str | None:
    """What stands between triple quotes; None if the text is not quoted."""
    stripped = text.strip()
    if _open_quotes(stripped) or not stripped.startswith(QUOTES):
        return None
    return stripped[3:-3].strip("\n")


def _open_quotes(text: str) -> bool:
    """Quotes were opened and not closed."""
    text = text.strip()
    return text.startswith(QUOTES) and (len(text) < 6 or not text.endswith(QUOTES))


def file_history(path: Path) -> History:
    """The lines typed before and from now on, in a file that only its owner can read. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        os.fchmod(descriptor, 0o600)  # one that was made with other rights
    finally:
        os.close(descriptor)
    return _FileHistory(str(path))


def no_history() -> History:
    """The lines of this chat only."""
    return InMemoryHistory()


class _FileHistory(FileHistory):
    def store_string(self, string: str) -> None:
        with suppress(OSError):  # a full disk costs the line in the history, not the question
            super().store_string(string)


class _Completer(Completer):
    def __init__(self, complete: Complete) -> None:
        self._complete = complete

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        for text, replaced in self._complete(document.text_before_cursor):
            yield Completion(text, start_position=-replaced)


def _bindings() -> KeyBindings:
    keys = KeyBindings()

    @keys.add("enter")
    def _enter(event: KeyPressEvent) -> None:
        buffer = event.current_buffer
        if buffer.complete_state and buffer.complete_state.current_completion:
            buffer.complete_state = None  # takes the completion, as in a shell
        elif _open_quotes(buffer.text):
            buffer.newline()
        else:
            buffer.validate_and_handle()

    @keys.add("escape", "enter")
    @keys.add("c-j")
    def _newline(event: KeyPressEvent) -> None:
        event.current_buffer.newline()

    @keys.add("c-g")
    def _editor(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    return keys
