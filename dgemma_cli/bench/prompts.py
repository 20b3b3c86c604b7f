"""What a model is measured with: shipped prompts of several kinds and lengths, a user's own, and long contexts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from dgemma_cli.bench.tasks import nano_tasks
from dgemma_cli.bench.user_file import read_text
from dgemma_cli.errors import UsageError
from dgemma_cli.prompting.conversation import Message

Turn = tuple[Message, Message]
Encode = Callable[[Sequence[Message]], Sequence[int]]

# The embedded model knows its jobs and nothing else; these of them, by what they are like.
_NANO_KINDS = {
    "talk": "chat",
    "facts": "chat",
    "sort": "words",
    "sum": "maths",
    "to_json": "json",
    "table": "table",
    "spelling": "prose",
    "story": "prose",
}
_NANO_RECALL = "sort"


@dataclass(frozen=True, slots=True)
class Prompt:
    """kind: "code", "prose", "json", "maths", "chat" …; ids: its tokens, where they are known; context: the tokens it
    was asked to be filled up to.
    """

    name: str
    kind: str
    messages: tuple[Message, ...] = ()
    ids: tuple[int, ...] = ()
    context: int | None = None


@dataclass(frozen=True, slots=True)
class Collection:
    """prompts: what is measured unless something else is asked for; recall: the question behind a long context; turns:
    what such a context is filled with.
    """

    prompts: tuple[Prompt, ...]
    recall: Prompt
    turns: tuple[Turn, ...]


def general() -> Collection:
    """For models that can do everything."""
    text = (files("dgemma_cli.bench") / "prompts.json").read_text(encoding="utf-8")
    parsed = json.loads(text)
    return Collection(
        tuple(map(_prompt, parsed["prompts"])),
        _prompt(parsed["recall"]),
        tuple(_turn(turn["user"], turn["assistant"]) for turn in parsed["turns"]),
    )


def nano() -> Collection:
    """The embedded model's own jobs: one of each chosen kind, and the others as what was said before."""
    tasks = nano_tasks()
    first = {task.family: task for task in reversed(tasks)}
    prompts = {
        family: Prompt(family, kind, (Message("user", first[family].prompt),)) for family, kind in _NANO_KINDS.items()
    }
    turns = (_turn(task.prompt, task.answer or "") for task in tasks if task is not first[task.family])
    return Collection(tuple(prompts.values()), prompts[_NANO_RECALL], tuple(turns))


def _prompt(parsed: Any) -> Prompt:
    messages = tuple(Message(message["role"], message["content"]) for message in parsed["messages"])
    return Prompt(parsed["name"], parsed["kind"], messages)


def _turn(asked: str, answered: str) -> Turn:
    return Message("user", asked), Message("assistant", answered)


def read_prompt_file(path: Path) -> Prompt:
    """A user's own prompt, the whole text of a file. Raises UsageError."""
    text = read_text(path)
    if not text.strip():
        raise UsageError(f"{path} holds no prompt.")
    return Prompt(path.name, "file", (Message("user", text.rstrip("\r\n")),))


def parse_contexts(text: str) -> tuple[int, ...]:
    """Token counts from "1k,4k,32768"; k is 1,024. Raises UsageError."""
    found = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d{1,9})([kK]?)\s*", part)
        if match is None or int(match[1]) == 0:
            raise UsageError(f"{part.strip()!r} is no number of tokens.", "Write --contexts 1k,4k,32k")
        found.append(int(match[1]) * (1024 if match[2] else 1))
    if len(set(found)) < len(found):
        raise UsageError("--contexts names the same number of tokens twice.")
    return tuple(found)


def fill(prompt: Prompt, turns: Sequence[Turn], context: int, encode: Encode) -> Prompt:
    """``prompt`` behind as much conversation as fits ``context`` tokens: turn after turn, the first one cut to measure.

    Real text, because what a prompt holds decides how many steps the reply takes. Raises UsageError if the prompt alone
    is longer.
    """

    def behind(whole: int, words: int = 0) -> tuple[Message, ...]:
        """The prompt behind ``whole`` turns, before which another stands with the first ``words`` of its words."""
        messages = [message for turn in reversed(range(whole)) for message in turns[turn % len(turns)]]
        if words:
            asked, answered = turns[whole % len(turns)]
            messages[:0] = [Message("user", " ".join(asked.content.split(" ")[:words])), answered]
        return (*messages, *prompt.messages)

    alone = len(encode(prompt.messages))
    if alone > context:
        raise UsageError(
            f"The prompt {prompt.name!r} alone has {alone:,} tokens, more than the context of {context:,}."
        )
    whole = _most(lambda count: len(encode(behind(count))) <= context)
    words = len(turns[whole % len(turns)][0].content.split(" "))
    words = _most(lambda count: count <= words and len(encode(behind(whole, count))) <= context)
    messages = behind(whole, words)
    return replace(prompt, messages=messages, ids=tuple(encode(messages)), context=context)


def _most(fits: Callable[[int], bool]) -> int:
    """The largest number that fits, where 0 does and all below one that fits do."""
    high = 1
    while fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
