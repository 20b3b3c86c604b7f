"""A conversation as JSON lines: a header, and a record for everything that changed it.

Format 1. The header is {"format": "dgemma-chat", "version": 1, "id", "created", "model"}; the records are
{"record": "system", "text": str or null}, {"record": "user", "text"}, {"record": "assistant", "text", "thinking",
"cut", "model"}, {"record": "undo"}, {"record": "drop", "turns"}, {"record": "clear"}. Played in order they give the
conversation.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dgemma_cli.chat.dialogue import Dialogue
from dgemma_cli.errors import DgemmaError, UsageError

FORMAT, VERSION = "dgemma-chat", 1

Record = dict[str, Any]


class Damaged(DgemmaError):
    """A conversation's file cannot be read. line: the first bad one. rescued: what the lines before it say."""

    def __init__(self, line: int, why: str, rescued: Story | None) -> None:
        super().__init__(f"line {line} is damaged ({why})")
        self.line = line
        self.rescued = rescued


class Newer(DgemmaError):
    """The file is of a version that this dgemma does not know."""


@dataclass(frozen=True, slots=True)
class Header:
    """Where a conversation began. created: ISO 8601, UTC. model: its name then."""

    id: str
    created: str
    model: str

    @classmethod
    def now(cls, identifier: str, model: str) -> Header:
        return cls(identifier, datetime.now(UTC).isoformat(timespec="seconds"), model)


@dataclass(frozen=True, slots=True)
class Story:
    """A file's content. records: as they were written."""

    header: Header
    records: list[Record]
    dialogue: Dialogue


def header_line(header: Header) -> str:
    return _line(
        {
            "format": FORMAT,
            "version": VERSION,
            "id": header.id,
            "created": header.created,
            "model": header.model,
        }
    )


def record_line(record: Record) -> str:
    return _line(record)


def from_dialogue(dialogue: Dialogue, model: str) -> Iterator[Record]:
    """The fewest records that give ``dialogue``."""
    if dialogue.system:
        yield {"record": "system", "text": dialogue.system}
    for turn in dialogue.turns:
        yield {"record": "user", "text": turn.user}
        yield {
            "record": "assistant",
            "text": turn.answer,
            "thinking": turn.thinking,
            "cut": turn.cut,
            "model": model,
        }
    if dialogue.question is not None:
        yield {"record": "user", "text": dialogue.question}


def play(record: Record, dialogue: Dialogue) -> None:
    """Do to ``dialogue`` what the record says. Raises ValueError if it says nothing sensible."""
    try:
        match record:
            case {"record": "system", "text": str() | None as text}:
                dialogue.system = text
            case {"record": "user", "text": str(text)}:
                dialogue.ask(text)
            case {"record": "assistant", "text": str(text), "thinking": str(thinking), "cut": bool(cut)}:
                dialogue.answer(text, thinking, cut)
            case {"record": "undo"}:
                dialogue.undo()
            case {"record": "drop", "turns": int(turns)}:
                dialogue.drop(turns)
            case {"record": "clear"}:
                dialogue.clear()
            case _:
                raise ValueError("an unknown record")
    except UsageError as error:
        raise ValueError(error.message) from None


def parse(data: bytes) -> Story:
    """Read a whole file. Raises Damaged, or Newer."""
    lines = data.split(b"\n")
    tail = lines.pop()  # what follows the last newline: nothing, unless a write was cut short
    story: Story | None = None
    for number, line in enumerate(lines, 1):
        try:
            value = json.loads(line.decode())
            if story is None:
                story = Story(_header(value), [], Dialogue())
            else:
                play(value, story.dialogue)
                story.records.append(value)
        except ValueError as error:  # of JSON and of UTF-8 too
            raise Damaged(number, str(error), story) from None
    if story is None:
        raise Damaged(1, "there is no header", None)
    if tail:
        raise Damaged(len(lines) + 1, "it has no end", story)
    return story


def _header(value: Any) -> Header:
    match value:
        case {"format": str(name), "version": int(version)} if name == FORMAT and version > VERSION:
            raise Newer(f"it has version {version}; this dgemma knows version {VERSION}", "Update dgemma.")
        case {
            "format": str(name),
            "version": int(version),
            "id": str(identifier),
            "created": str(created),
            "model": str(model),
        } if name == FORMAT and version == VERSION:
            return Header(identifier, created, model)
    raise ValueError("it is no header of a conversation")


def _line(value: Record) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
