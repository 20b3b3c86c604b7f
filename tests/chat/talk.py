"""A chat in this process: a scripted model, byte streams of our own, and typed lines from a list."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripted import ScriptedSession, script, spell

from dgemma_cli.chat.chat import Chat
from dgemma_cli.chat.settings import Settings
from dgemma_cli.chat.slash import obey
from dgemma_cli.chat.store import Store
from dgemma_cli.engine.events import Event
from dgemma_cli.engine.options import Options
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.writing import InProcess


@dataclass
class ScriptedLoaded(ScriptedSession):
    """Also a conversation. A prompt is as long as its text. forgotten: how often the cache was let go."""

    room: int = 1000
    shown: list[list[Any]] = field(default_factory=list)
    forgotten: int = 0

    def encode(self, messages: Sequence[Any], thinking: bool) -> list[int]:
        super().encode(messages, thinking)
        return [ord("x")] * sum(len(message.content) for message in messages)

    def converse(self) -> ScriptedLoaded:
        return self

    def reply(self, ids: Sequence[int], options: Options) -> Iterator[Event]:
        return self.generate(ids, options)

    def forget(self) -> None:
        self.forgotten += 1


@dataclass
class Talk:
    """A chat and what it says. ``say`` types a line."""

    chat: Chat
    model: ScriptedLoaded
    out: io.BytesIO
    err: io.BytesIO

    def say(self, line: str) -> None:
        obey(self.chat, line)

    def printed(self) -> str:
        """What came to standard output since the last time."""
        return _take(self.out)

    def told(self) -> str:
        """What came to standard error since the last time."""
        return _take(self.err)

    def answers(self, events: Callable[[], Iterator[Event]] | str) -> None:
        """What the model says from now on."""
        self.model.events = (lambda: script(spell(events))) if isinstance(events, str) else events

    @property
    def turns(self) -> list[tuple[str, str]]:
        return [(turn.user, turn.answer) for turn in self.chat.dialogue.turns]


def _take(stream: io.BytesIO) -> str:
    text = stream.getvalue().decode()
    stream.seek(0)
    stream.truncate()
    return text


def talk(
    folder: Path | None,
    settings: Settings | None = None,
    load: Callable[[str], Any] | None = None,
    variables: Mapping[str, str] | None = None,
) -> Talk:
    """A chat that is kept in ``folder``."""
    out, err = io.BytesIO(), io.BytesIO()
    environment = Environment(
        stdin=io.BytesIO(),
        stdout=out,
        stderr=err,
        stdin_is_terminal=False,
        stdout_is_terminal=False,
        stderr_is_terminal=False,
        stdout_is_pipe=True,
        encoding="utf-8",
        variables={"TERM": "xterm", **(variables or {})},
    )
    model = ScriptedLoaded(lambda: script(spell("Fine.")))
    chat = Chat(
        loaded=InProcess(model),
        load=load or (lambda name: InProcess(model)),
        settings=settings or Settings(markdown=False),
        environment=environment,
        live=False,
        color=False,
        store=Store(folder) if folder else None,
    )
    return Talk(chat, model, out, err)


def kept(going: Talk) -> list[tuple[str, str]]:
    """The turns as the file has them."""
    (found,) = [entry for entry in Store(going.chat.store.folder.parent).all() if entry.id == going.chat.journal.id]  # type: ignore[union-attr]
    assert found.damage is None
    assert found.dialogue == going.chat.dialogue
    return [(turn.user, turn.answer) for turn in found.dialogue.turns]


def shown(going: Talk) -> list[tuple[str, str]]:
    """What the model was shown last."""
    return [(message.role, message.content) for message in going.model.messages]
