"""The Writer of a server of this program: what it writes comes as entries, step by step. Imports no torch."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any

from dgemma_cli.engine.options import Options
from dgemma_cli.errors import NetworkError
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.server.wire import Gone, Wire
from dgemma_cli.terminal.entries import Entry, Start, Step
from dgemma_cli.terminal.json_lines import SCHEMA, read_entry
from dgemma_cli.writing import Conversation


class Served:
    """A model in a server. name, device, dtype, fit, room: as the server tells; place: where that is, in words."""

    tells_steps = True

    def __init__(self, wire: Wire, name: str, device: str, dtype: str, fit: str, room: int, place: str) -> None:
        self.name = name
        self.device = device
        self.dtype = dtype
        self.fit = fit
        self.room = room
        self.place = place
        self._wire = wire

    def count(self, messages: Sequence[Message], thinking: bool) -> int:
        found = self._wire.post("/tokenize", question(messages, thinking))
        if not isinstance(found, dict) or not isinstance(found.get("count"), int):
            raise NetworkError(f"{self._wire.name} does not say how long the prompt is.")
        return int(found["count"])

    def write(self, messages: Sequence[Message], thinking: bool, options: Options, pause: float) -> Iterator[Entry]:
        return self._entries(messages, thinking, options, pause, None)

    def converse(self) -> Conversation:
        return _Conversation(self)

    def described(self, options: Options) -> list[str]:
        told = {"model": self.name, "device": self.device, "dtype": self.dtype, "fit": self.fit, "place": self.place}
        return [f"{name:<7} {value}" for name, value in told.items()]

    def check_memory(self, options: Options) -> None:
        """The server refuses what it has no memory for."""

    def _entries(
        self, messages: Sequence[Message], thinking: bool, options: Options, pause: float, conversation: str | None
    ) -> Iterator[Entry]:
        own = {"events": True if options.drafts else "blocks", **settings(options)}
        if conversation is not None:
            own["conversation"] = conversation
        body = question(messages, thinking) | {
            "model": self.name,
            "max_tokens": options.max_tokens,
            # Drawn here if it is to be random: with a seed the server takes up nothing that could leave a trace.
            "seed": secrets.randbits(32) if options.seed is None else options.seed,
            "stream": True,
            "dgemma": own,
        }
        if not can_ask(options):
            raise Gone("The server cannot be asked for text that is held.")
        with self._wire.stream("chat/completions", body) as chunks:
            for chunk in chunks:
                if "event" not in chunk:
                    continue
                entry = self._read(chunk["event"])
                if not isinstance(entry, Start):
                    yield entry
                if pause and isinstance(entry, Step):
                    time.sleep(pause)

    def _read(self, found: Any) -> Entry:
        try:
            schema = found.pop("schema", SCHEMA)
            if schema != SCHEMA:
                raise NetworkError(f"{self._wire.name} tells its events in another form ({schema}).", "Update dgemma.")
            return read_entry(found)[1]
        except (ValueError, TypeError, AttributeError) as error:
            raise NetworkError(f"{self._wire.name} sent an event that is damaged ({error}).") from None


class _Conversation:
    """Has a name, by which the server finds its cache again."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._name = secrets.token_hex(12)

    def reply(self, messages: Sequence[Message], thinking: bool, options: Options) -> Iterator[Entry]:
        return self._served._entries(messages, thinking, options, 0.0, self._name)

    def forget(self) -> None:
        self._name = secrets.token_hex(12)  # the other is let go when it is the least recently used


def can_ask(options: Options) -> bool:
    """Whether a request can say all that the options say."""
    return options.held is None and isinstance(options.preset, str)


def question(messages: Sequence[Message], thinking: bool) -> dict[str, Any]:
    said = [{"role": message.role, "content": message.content} for message in messages]
    return {"messages": said} | ({"chat_template_kwargs": {"enable_thinking": True}} if thinking else {})


def settings(options: Options) -> dict[str, Any]:
    """What is set of the sampler, other than it is without being set."""
    plain = Options()
    names = [entry.name for entry in fields(Options) if entry.name not in ("max_tokens", "seed", "drafts", "held")]
    return {name: getattr(options, name) for name in names if getattr(options, name) != getattr(plain, name)}
