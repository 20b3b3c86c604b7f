"""Who answers: a model in this process, or one behind a server. Both take messages and give entries."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from dgemma_cli.engine.events import Denoised, Event, Finished
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.terminal.entries import Entry
from dgemma_cli.terminal.narrator import Language, Narrator

HERE = "this process"


class ContextFull(UsageError):
    """The conversation has become too long for the context."""

    def __init__(self, tokens: int, room: int) -> None:
        super().__init__(
            f"The context is full: the conversation has {tokens:,} tokens, and there is room for {room:,}."
        )


class Conversation(Protocol):
    """Replies to one conversation's prompts, each of them given whole; what was read before is not read again."""

    def reply(self, messages: Sequence[Message], thinking: bool, options: Options) -> Iterator[Entry]:
        """The entries of one reply. Raises ContextFull."""

    def forget(self) -> None:
        """Let go of what is kept between the replies."""


class Writer(Protocol):
    """A model ready to write. device, dtype: where and in what numbers it computes; fit: what was changed so that it
    fits; place: in which process, in words. room: tokens a prompt may have. tells_steps: the canvas can be watched.
    """

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> str: ...
    @property
    def dtype(self) -> str: ...
    @property
    def place(self) -> str: ...
    @property
    def fit(self) -> str: ...
    @property
    def room(self) -> int: ...
    @property
    def tells_steps(self) -> bool: ...

    def count(self, messages: Sequence[Message], thinking: bool) -> int:
        """How many tokens the messages take as a prompt."""

    def write(self, messages: Sequence[Message], thinking: bool, options: Options, pause: float) -> Iterator[Entry]:
        """The entries of one reply, from its Prompt to its Finish. pause: seconds each step is held for."""

    def converse(self) -> Conversation:
        """A conversation with this model."""

    def described(self, options: Options) -> list[str]:
        """What ``-v`` tells of it, a line each."""

    def check_memory(self, options: Options) -> None:
        """Raises OutOfMemory where a conversation with these settings is known to need more than there is."""


class Replying(Protocol):
    """``engine.session.Session``."""

    def reply(self, ids: Sequence[int], options: Options) -> Iterator[Event]: ...
    def forget(self) -> None: ...


class Loaded(Protocol):
    """``commands.loading.Session``: a model in this process. choice: device and dtype, and why those."""

    @property
    def name(self) -> str: ...
    @property
    def folder(self) -> Path: ...
    @property
    def choice(self) -> Any: ...
    @property
    def model(self) -> Any: ...
    @property
    def room(self) -> int: ...
    def steps(self, options: Options) -> str: ...
    def encode(self, messages: Sequence[Message], thinking: bool) -> list[int]: ...
    def language(self, prompt: Sequence[int]) -> Language: ...
    def generate(self, ids: Sequence[int], options: Options) -> Iterator[Event]: ...
    def converse(self) -> Replying: ...
    def check_memory(self, options: Options) -> None: ...


class InProcess:
    """The Writer of a model in this process."""

    place = HERE
    tells_steps = True

    def __init__(self, session: Loaded) -> None:
        self.session = session
        self.name = session.name
        self.device: str = session.choice.device
        self.dtype: str = session.choice.dtype
        self.fit: str = session.choice.fit

    @property
    def room(self) -> int:
        return self.session.room

    def count(self, messages: Sequence[Message], thinking: bool) -> int:
        return len(self.session.encode(messages, thinking))

    def write(self, messages: Sequence[Message], thinking: bool, options: Options, pause: float) -> Iterator[Entry]:
        ids = self.session.encode(messages, thinking)
        return narrated(_paced(self.session.generate(ids, options), pause), self.session.language(ids))

    def converse(self) -> Conversation:
        return _Narrated(self.session)

    def check_memory(self, options: Options) -> None:
        self.session.check_memory(options)

    def described(self, options: Options) -> list[str]:
        session, choice = self.session, self.session.choice
        lines = [
            f"model   {session.name} ({session.folder})",
            f"device  {choice.device} ({choice.why_device})",
            f"dtype   {choice.dtype} ({choice.why_dtype})",
            f"kernels {session.model.kernels}",
            f"steps   {session.steps(options)}",
        ]
        if choice.fit != "as stored":
            lines.append(f"fit     {choice.fit}" + (f" (errors: {choice.rounding})" if choice.rounding else ""))
        if session.model.skipped:
            lines.append(f"skipped {session.model.skipped} vision tensors: dgemma reads text only")
        return lines


class _Narrated:
    """The Conversation with a model in this process."""

    def __init__(self, session: Loaded) -> None:
        self._session = session
        self.inner = session.converse()

    def reply(self, messages: Sequence[Message], thinking: bool, options: Options) -> Iterator[Entry]:
        ids = self._session.encode(messages, thinking)
        if len(ids) > self._session.room:
            raise ContextFull(len(ids), self._session.room)
        return narrated(self.inner.reply(ids, options), self._session.language(ids))

    def forget(self) -> None:
        self.inner.forget()


def narrated(events: Iterable[Event], language: Language) -> Iterator[Entry]:
    """The events of one reply, told as entries."""
    narrator = Narrator(language)
    for event in events:
        yield narrator.tell(event)


def _paced(events: Iterator[Event], pause: float) -> Iterator[Event]:
    """``events``, each step held for ``pause`` seconds, which are taken out of the statistics again."""
    paused = paused_first = 0.0
    for event in events:
        if isinstance(event, Finished) and paused:
            figures = event.statistics
            event = replace(
                event,
                statistics=replace(
                    figures,
                    seconds=figures.seconds - paused,
                    first_block_seconds=figures.first_block_seconds - paused_first,
                ),
            )
        yield event
        if pause and isinstance(event, Denoised):
            begun = time.perf_counter()
            time.sleep(pause)
            paused += time.perf_counter() - begun
            if event.block == 0:
                paused_first = paused
