"""What a request asks for: the body of an OpenAI call, checked. What dgemma does not do is refused by its name."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NoReturn

from dgemma_cli.engine.options import SEEDS, Options
from dgemma_cli.errors import UsageError
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.sampling.presets import DEFAULT as DEFAULT_PRESET
from dgemma_cli.server.refusal import Refusal, unsupported, wrong

Json = Any  # whatever a client sends

_MOST_STEPS = 1024  # so that a request's work is bounded
_LONGEST_NAME = 200

# Values that ask for what is done anyway. Any other value of these, and any other parameter, is refused.
_NEUTRAL: dict[str, tuple[Json, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "top_p": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "stop": ([], ""),
    "tools": ([],),
    "tool_choice": ("none",),
    "functions": ([],),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "metadata": ({},),
    "service_tier": ("auto", "default"),
    "echo": (False,),
    "suffix": ("",),
}
_HINTS = {
    "temperature": "The canvas cools over its steps: dgemma.t_max and dgemma.t_min.",
    "n": "Ask once for each answer.",
}
_COMMON = {"model", "max_tokens", "seed", "stream", "stream_options", "user", "dgemma"}
_CHAT = _COMMON | {"messages", "max_completion_tokens", "chat_template_kwargs"}
_COMPLETION = _COMMON | {"prompt"}
_ROLES: dict[str, Literal["system", "user", "assistant"]] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
# Fields of a message as a client gets it, which it may send back.
_EMPTY_IN_MESSAGES = ("refusal", "annotations", "audio", "function_call", "tool_calls", "name")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is well formed.

    messages: of a chat; prompt: of a completion, as text or as ids. events: dgemma's own are wanted; steps: one for
    every step among them. conversation: a name for its cache; user: who takes turns with other users.
    """

    model: str | None
    messages: tuple[Message, ...]
    prompt: str | tuple[int, ...]
    thinking: bool
    options: Options
    stream: bool
    include_usage: bool
    events: bool
    steps: bool
    conversation: str | None
    user: str | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a request may ask for at the most. tokens: of max_tokens; canvases: of best_of."""

    tokens: int
    vocabulary: int
    canvases: int = 16


def decode(data: bytes) -> Json:
    """The JSON in a body. Raises Refusal."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(data, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        words = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise Refusal(400, f"The body is no valid JSON: {words}", "invalid_json") from None


def chat(body: Json, bounds: Bounds) -> Asked:
    """Read the body of /v1/chat/completions. Raises Refusal."""
    given = _parameters(body, _CHAT)
    messages = given.get("messages")
    if not isinstance(messages, list) or not messages:
        raise wrong("messages", "must be a list of messages, and not empty")
    read = tuple(_message(message, f"messages[{place}]") for place, message in enumerate(messages))
    template = _object(given, "chat_template_kwargs")
    for key in template:
        if key != "enable_thinking":
            raise unsupported(f"chat_template_kwargs.{_short(key)}")
    thinking = _boolean(template, "enable_thinking", "chat_template_kwargs.")
    return _asked(given, bounds, messages=read, thinking=thinking)


def completion(body: Json, bounds: Bounds) -> Asked:
    """Read the body of /v1/completions. Raises Refusal."""
    given = _parameters(body, _COMPLETION)
    prompt = given.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], str | list):
        prompt = prompt[0]
    if isinstance(prompt, str):
        return _asked(given, bounds, prompt=_text(prompt, "prompt"))
    if not isinstance(prompt, list) or not prompt:
        raise wrong("prompt", "must be one text, or one list of token ids, and not empty")
    if not all(type(token) is int and 0 <= token < bounds.vocabulary for token in prompt):
        raise wrong("prompt", f"must be one text, or a list of token ids below {bounds.vocabulary:,}")
    return _asked(given, bounds, prompt=tuple(prompt))


def _asked(
    given: Mapping[str, Json],
    bounds: Bounds,
    messages: tuple[Message, ...] = (),
    prompt: str | tuple[int, ...] = "",
    thinking: bool = False,
) -> Asked:
    own = _object(given, "dgemma")
    stream = _boolean(given, "stream")
    extra = _object(given, "stream_options")
    if extra and not stream:
        raise wrong("stream_options", "is for streams: set stream to true")
    for key in extra:
        if key != "include_usage":
            raise unsupported(f"stream_options.{_short(key)}")
    events = own.get("events", False)
    if not isinstance(events, bool) and events != "blocks":
        raise wrong("dgemma.events", 'must be true, false or "blocks"')
    if events and not stream:
        raise wrong("dgemma.events", "needs stream to be true")
    return Asked(
        model=_name(given, "model"),
        messages=messages,
        prompt=prompt,
        thinking=thinking,
        options=_options(given, own, bounds),
        stream=stream,
        include_usage=_boolean(extra, "include_usage", "stream_options."),
        events=bool(events),
        steps=events is True,
        conversation=_name(own, "conversation", "dgemma."),
        user=_name(given, "user"),
    )


def _parameters(body: Json, known: set[str]) -> dict[str, Json]:
    """The parameters that are given and mean something. null is as good as nothing."""
    if not isinstance(body, dict):
        raise Refusal(400, "The body must be a JSON object.", "invalid_json")
    given = {key: value for key, value in body.items() if value is not None}
    for key, value in given.items():
        if key in known or any(_same(value, neutral) for neutral in _NEUTRAL.get(key, ())):
            continue
        raise unsupported(_short(key), _HINTS.get(key, ""))
    return {key: value for key, value in given.items() if key in known}


def _same(value: Json, neutral: Json) -> bool:
    return value == neutral and isinstance(value, bool) == isinstance(neutral, bool)


def _message(message: Json, where: str) -> Message:
    if not isinstance(message, dict):
        raise wrong(where, "must be an object with role and content")
    role = message.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise wrong(f"{where}.role", f"must be one of {', '.join(_ROLES)}")
    for key, value in message.items():
        # The model never sees the thoughts of earlier turns: a client that sends them back asks for nothing.
        if key in ("role", "content") or (role == "assistant" and key in ("reasoning_content", "reasoning")):
            continue
        if value is None or (key in _EMPTY_IN_MESSAGES and value == []):
            continue
        raise unsupported(f"{where}.{_short(key)}")
    return Message(_ROLES[role], _content(message.get("content"), f"{where}.content"))


def _content(content: Json, where: str) -> str:
    """Text, or parts of text."""
    if isinstance(content, str):
        return _text(content, where)
    if not isinstance(content, list) or not content:
        raise wrong(where, "must be text, or a list of parts of type text")
    parts = []
    for place, part in enumerate(content):
        inside = f"{where}[{place}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind is None:
            raise wrong(inside, "must be a part of type text")
        if kind != "text":
            raise wrong(inside, f"has the type {_short(kind)}; dgemma reads text only")
        if set(part) - {"type", "text"} or not isinstance(part.get("text"), str):
            raise wrong(inside, "must have type and text, and nothing else")
        parts.append(_text(part["text"], inside))
    return "".join(parts)


def _text(text: str, where: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise wrong(where, f"is no valid Unicode (at character {error.start})") from None
    return text


def _options(given: Mapping[str, Json], own: Mapping[str, Json], bounds: Bounds) -> Options:
    limits = [_integer(given, name, bounds.tokens) for name in ("max_tokens", "max_completion_tokens")]
    found = {limit for limit in limits if limit is not None}
    if len(found) > 1:
        raise wrong("max_completion_tokens", "says another number than max_tokens")
    values: dict[str, Json] = {"max_tokens": found.pop() if found else min(Options().max_tokens, bounds.tokens)}
    values["seed"] = _integer(given, "seed", SEEDS - 1, low=0)
    values["preset"] = DEFAULT_PRESET
    most = {"steps": _MOST_STEPS, "best_of": bounds.canvases}
    for key, value in own.items():
        if key in ("events", "conversation"):
            continue
        if key not in _KNOBS:
            raise unsupported(f"dgemma.{_short(key)}", f"There are {', '.join(sorted(_KNOBS))}, conversation, events.")
        kinds = _KNOBS[key]
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, kinds):
            raise wrong(f"dgemma.{key}", f"must be a {' or '.join(_WORDS[kind] for kind in kinds)}")
        if key in most and own[key] > most[key]:
            raise wrong(f"dgemma.{key}", f"must be at most {most[key]}")
        values[key] = value
    try:
        return Options(**values)
    except (UsageError, OverflowError) as error:
        words = error.message if isinstance(error, UsageError) else "A number of dgemma is too large."
        raise Refusal(400, words, "invalid_value", "dgemma") from None


_WORDS = {int: "whole number", float: "number", str: "text", bool: "boolean"}


def _knobs() -> dict[str, tuple[type, ...]]:
    """The settings of a generation that ``dgemma`` may hold, with the types JSON may give them."""
    hints = typing.get_type_hints(Options)
    found = {}
    for entry in fields(Options):
        if entry.name in ("max_tokens", "seed", "drafts"):
            continue
        hint = hints[entry.name]
        kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        plain = tuple(kind for kind in kinds if kind in _WORDS)
        if plain:
            found[entry.name] = (int, *plain) if float in plain and int not in plain else plain
    return found


_KNOBS = _knobs()


def _object(given: Mapping[str, Json], key: str) -> dict[str, Json]:
    value = given.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise wrong(key, "must be an object")
    return {key: value for key, value in value.items() if value is not None}


def _boolean(given: Mapping[str, Json], key: str, where: str = "") -> bool:
    value = given.get(key, False)
    if not isinstance(value, bool):
        raise wrong(where + key, "must be true or false")
    return value


def _integer(given: Mapping[str, Json], key: str, high: int, low: int = 1) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if type(value) is not int or not low <= value <= high:
        raise wrong(key, f"must be a whole number from {low} to {high:,}")
    return value


def _name(given: Mapping[str, Json], key: str, where: str = "") -> str | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME:
        raise wrong(where + key, f"must be a text of 1 to {_LONGEST_NAME} characters")
    return value


def _short(key: Json) -> str:
    """A client's own words, as short as an error line may have them."""
    return "".join(c if c.isprintable() else "?" for c in str(key)[:60])
