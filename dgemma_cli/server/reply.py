"""Replies in the shapes of OpenAI's API, whole and in pieces. ``usage`` counts kept tokens."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

from dgemma_cli.server.refusal import Refusal
from dgemma_cli.server.request import Asked
from dgemma_cli.terminal import json_lines
from dgemma_cli.terminal.entries import Commit, Entry, Finish, Prompt, Start

Json = dict[str, Any]

_REASONS = {"eos": "stop", "length": "length", "context": "length", "repetition": "length"}
DONE = b"data: [DONE]\n\n"
ALIVE = b": still here\n\n"  # a comment, which clients skip


class Reply:
    """One reply as it is told. Feed it every entry, in order."""

    def __init__(self, asked: Asked, start: Start) -> None:
        self._asked = asked
        self._start = start
        self._chat = bool(asked.messages)
        self._id = ("chatcmpl-" if self._chat else "cmpl-") + secrets.token_hex(12)
        self._begun = time.time()
        self._cached = 0
        self._told = 0  # characters of thinking

    def opening(self) -> Iterator[bytes]:
        """What a stream begins with."""
        if self._asked.events:
            yield self._event(self._start)
        if self._chat:
            yield self._chunk([self._choice({"role": "assistant", "content": ""})])

    def pieces(self, entry: Entry) -> Iterator[bytes]:
        """What a stream tells of ``entry``: its text, a block at a time; every event, if they were asked for."""
        if isinstance(entry, Prompt):
            self._cached = entry.cached
        if self._asked.events:
            yield self._event(entry)
        match entry:
            case Commit():
                self._told += len(entry.thinking)
                yield from self._text(entry.thinking, entry.text)
            case Finish():
                yield from self._text(entry.thinking[self._told :], entry.rest)
                ended = self._choice({} if self._chat else {"text": ""}, _REASONS[entry.stop_reason])
                yield self._chunk([ended], dgemma=_figures(self._start, entry))
                if self._asked.include_usage:
                    yield self._chunk([], usage=self._usage(entry))
                yield DONE

    def whole(self, prompt: Prompt, finish: Finish) -> Json:
        """The answer of a request that is no stream."""
        self._cached = prompt.cached
        thinking = {"reasoning_content": finish.thinking} if finish.thinking else {}
        choice: Json = {"index": 0, "finish_reason": _REASONS[finish.stop_reason], "logprobs": None}
        if self._chat:
            choice["message"] = {"role": "assistant", "content": finish.text, **thinking}
        else:
            choice |= {"text": finish.text, **thinking}
        return self._object("chat.completion" if self._chat else "text_completion") | {
            "choices": [choice],
            "usage": self._usage(finish),
            "dgemma": _figures(self._start, finish),
        }

    def _text(self, thinking: str, text: str) -> Iterator[bytes]:
        if thinking:
            added = {"reasoning_content": thinking} if self._chat else {"text": "", "reasoning_content": thinking}
            yield self._chunk([self._choice(added)])
        if text:
            yield self._chunk([self._choice({"content": text} if self._chat else {"text": text})])

    def _choice(self, added: Json, reason: str | None = None) -> Json:
        inner = {"delta": added} if self._chat else added
        return {"index": 0, **inner, "finish_reason": reason, "logprobs": None}

    def _chunk(self, choices: list[Json], **more: Any) -> bytes:
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        return sse(self._object(kind) | {"choices": choices} | more)

    def _event(self, entry: Entry) -> bytes:
        """A chunk that only dgemma's clients make something of: one of its JSON lines, in the key ``event``."""
        line = json_lines.to_line(entry, round(time.time() - self._begun, 4))
        kind = "chat.completion.chunk" if self._chat else "text_completion"
        head = json.dumps(self._object(kind) | {"choices": []})
        return f'data: {head[:-1]}, "event": {line}}}\n\n'.encode()

    def _object(self, kind: str) -> Json:
        return {"id": self._id, "object": kind, "created": int(self._begun), "model": self._start.model}

    def _usage(self, finish: Finish) -> Json:
        return {
            "prompt_tokens": finish.prompt_tokens,
            "completion_tokens": finish.tokens,
            "total_tokens": (finish.prompt_tokens or 0) + (finish.tokens or 0),
            "prompt_tokens_details": {"cached_tokens": self._cached},
        }


def sse(found: Json) -> bytes:
    """One event of a stream."""
    return b"data: " + json.dumps(found, allow_nan=False).encode() + b"\n\n"


def failure(refusal: Refusal) -> bytes:
    """How a stream that has begun tells that it fails."""
    return sse(refusal.body())


def _figures(start: Start, finish: Finish) -> Json:
    """The figures of a run, as ``dgemma run --json`` has them, without the text."""
    found: Json = json.loads(json_lines.result(start, finish))
    return {key: value for key, value in found.items() if key not in ("text", "thinking")}
