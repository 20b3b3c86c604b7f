"""Tasks with a right answer: how good a preset is, beside how fast."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from dgemma_cli.bench.user_file import read_text
from dgemma_cli.errors import UsageError

_FORM = 'A line is {"prompt": "…", "answer": "…"}, or "pattern" (a regular expression) in place of "answer".'


@dataclass(frozen=True, slots=True)
class Task:
    """prompt: what is asked; answer: the reply to the letter, or pattern: what the whole of it matches. White space
    around a reply is forgiven. family: tasks of one kind.
    """

    prompt: str
    answer: str | None = None
    pattern: re.Pattern[str] | None = None
    family: str = ""

    def check(self, reply: str) -> bool:
        """Whether a reply is right."""
        reply = reply.strip()
        return reply == self.answer if self.pattern is None else self.pattern.fullmatch(reply) is not None


def nano_tasks() -> list[Task]:
    """Jobs that the embedded model was not trained on, a few of each kind (made by tools/nano_tasks.py)."""
    text = (files("dgemma_cli.bench") / "nano_tasks.jsonl").read_text(encoding="utf-8")
    return list(_parse(text, "nano_tasks.jsonl"))


def read_tasks(path: Path) -> list[Task]:
    """The tasks of a file, one a line. Raises UsageError naming the line that is none."""
    text = read_text(path)
    found = list(_parse(text, str(path)))
    if not found:
        raise UsageError(f"{path} holds no task.", _FORM)
    return found


def _parse(text: str, name: str) -> Iterator[Task]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            parsed = json.loads(line)
        except (ValueError, RecursionError):
            raise UsageError(f"{name}, line {number} is no JSON.", _FORM) from None
        try:
            yield _task(parsed)
        except (ValueError, re.error) as error:
            raise UsageError(f"{name}, line {number}: {error}.", _FORM) from None


def _task(parsed: Any) -> Task:
    if not isinstance(parsed, dict) or not all(isinstance(value, str) for value in parsed.values()):
        raise ValueError("not an object of strings")
    unknown = set(parsed) - {"prompt", "answer", "pattern", "family"}
    if unknown:
        raise ValueError(f"unknown key {min(unknown)!r}")
    if not parsed.get("prompt", "").strip():
        raise ValueError("there is no prompt")
    if ("answer" in parsed) == ("pattern" in parsed):
        raise ValueError("one of answer and pattern is needed")
    pattern = re.compile(parsed["pattern"], re.DOTALL) if "pattern" in parsed else None
    answer = parsed["answer"].strip() if "answer" in parsed else None
    return Task(parsed["prompt"], answer, pattern, parsed.get("family", ""))
