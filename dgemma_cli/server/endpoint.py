"""Servers somewhere else: any that speak OpenAI's API. One of this program's is known by what it says of its model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from dgemma_cli.engine.options import Options
from dgemma_cli.errors import NetworkError, UsageError
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.server.served import Served, question, settings
from dgemma_cli.server.wire import Wire
from dgemma_cli.terminal.entries import Commit, Entry, Finish, Prompt
from dgemma_cli.terminal.untrusted import visible
from dgemma_cli.writing import Conversation, Writer

_REASONS = {"stop": "eos", "length": "length"}
UNKNOWN = "unknown"


def connect(url: str, key: str | None, model: str | None, plain: bool = False) -> Writer:
    """The model that the server at ``url`` has under this name; None is the only one it has. plain: ask one of this
    program's like any other.

    Raises UsageError for an address that is none and for a model it does not have, NetworkError if it does not answer.
    """
    url = _address(url, key)
    wire = Wire(url, url, key=key)
    listed = wire.get("models")
    found = listed.get("data") if isinstance(listed, dict) else None
    models = {each["id"]: each for each in found or () if isinstance(each, dict) and isinstance(each.get("id"), str)}
    if not models:
        raise NetworkError(f"{url} lists no models.", "Does the address end in /v1?")
    if model is None and len(models) == 1:
        model = next(iter(models))
    if model is None or model not in models:
        names = ", ".join(sorted(visible(name) for name in models)[:20])
        missing = "Several models are there." if model is None else f"{url} has no model called {model!r}."
        raise UsageError(missing, f"Take one of them with --model: {names}")
    own = models[model].get("dgemma")
    if isinstance(own, dict) and isinstance(own.get("room"), int) and not plain:
        device, dtype = str(own.get("device", UNKNOWN)), str(own.get("dtype", UNKNOWN))
        fit = str(own.get("fit", UNKNOWN))
        return Served(wire, model, visible(device), visible(dtype), visible(fit), own["room"], url)
    length = models[model].get("max_model_len")
    return Endpoint(wire, model, length if isinstance(length, int) else None)


def _address(url: str, key: str | None) -> str:
    """``url`` as it is used. Raises UsageError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r} is no address of a server.", "Like this: http://127.0.0.1:8000/v1")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise UsageError("An endpoint's address is no place for a key.", "The key comes from DGEMMA_API_KEY.")
    url = url.rstrip("/")
    return url if parts.path.rstrip("/") else f"{url}/v1"


class Endpoint:
    """The Writer of another program's server, such as vLLM. It tells no steps: text comes in pieces, as it is sent."""

    tells_steps = False
    device = UNKNOWN
    dtype = UNKNOWN
    fit = UNKNOWN

    def __init__(self, wire: Wire, name: str, length: int | None) -> None:
        self.name = name
        self.place = wire.url
        self.room = length or 1 << 62  # it will refuse what is too long for it
        self._wire = wire

    def count(self, messages: Sequence[Message], thinking: bool) -> int:
        raise UsageError(f"{self._wire.name} does not tell how many tokens a conversation has.")

    def write(self, messages: Sequence[Message], thinking: bool, options: Options, pause: float) -> Iterator[Entry]:
        refuse(options)
        return self._entries(messages, thinking, options)

    def converse(self) -> Conversation:
        return _Conversation(self)

    def described(self, options: Options) -> list[str]:
        return [f"model   {self.name}", f"place   {self.place} (no steps are told)"]

    def check_memory(self, options: Options) -> None:
        """The server refuses what it has no memory for."""

    def _entries(self, messages: Sequence[Message], thinking: bool, options: Options) -> Iterator[Entry]:
        body = question(messages, thinking) | {
            "model": self.name,
            "max_tokens": options.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if options.seed is not None:
            body["seed"] = options.seed
        text = thought = ""
        usage: dict[str, Any] = {}
        reason: str | None = None
        begun = time.perf_counter()
        first = 0.0
        pieces = 0
        with self._wire.stream("chat/completions", body) as chunks:
            for chunk in chunks:
                usage = chunk.get("usage") or usage
                choice = (chunk.get("choices") or [{}])[0]
                delta = choice.get("delta") or {}
                added, thinking_added = _piece(delta, "content"), _piece(delta, "reasoning_content", "reasoning")
                reason = choice.get("finish_reason") or reason
                if added or thinking_added:
                    first = first or time.perf_counter() - begun
                    text, thought = text + added, thought + thinking_added
                    yield Commit(pieces, added, thinking_added, None, None, None, None)
                    pieces += 1
        seconds = time.perf_counter() - begun
        prompt_tokens, tokens = _count(usage, "prompt_tokens"), _count(usage, "completion_tokens")
        if prompt_tokens is not None:
            cached = _count(usage.get("prompt_tokens_details") or {}, "cached_tokens")
            yield Prompt(prompt_tokens, cached or 0, 0.0)
        yield Finish(
            text=text,
            thinking=thought,
            rest="",
            thought_closed=bool(text) or not thought,
            prompt_tokens=prompt_tokens,
            tokens=tokens,
            blocks=None,
            steps=None,
            tokens_per_forward=None,
            effective_steps=None,
            converged=None,
            prefill_seconds=None,
            first_block_seconds=first,
            seconds=seconds,
            tokens_per_second=None if tokens is None else tokens / seconds,
            stop_reason=_REASONS.get(reason or "", reason or UNKNOWN),
            seed=options.seed,
        )


class _Conversation:
    """Every turn is sent whole; what the server keeps of the ones before is its own matter."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    def reply(self, messages: Sequence[Message], thinking: bool, options: Options) -> Iterator[Entry]:
        return self._endpoint.write(messages, thinking, options, 0.0)

    def forget(self) -> None:
        """Nothing is kept here."""


def refuse(options: Options) -> None:
    """Raise UsageError for settings of the sampler, which another program's server has its own of."""
    given = [f"--{name.replace('_', '-')}" for name in settings(options)]
    if given:
        raise UsageError(
            f"This endpoint cannot be told {', '.join(given)}.",
            "Its sampler is set where it is served. Leave them out, or set them back with /set NAME default.",
        )


def _piece(delta: dict[str, Any], *names: str) -> str:
    """The first of these that is there: the same text may come under an old name and a new one."""
    return next((value for name in names if isinstance(value := delta.get(name), str)), "")


def _count(usage: dict[str, Any], name: str) -> int | None:
    value = usage.get(name)
    return value if isinstance(value, int) else None
