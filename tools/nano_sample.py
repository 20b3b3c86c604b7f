"""One job of the embedded model: a prompt, a right answer to it, and what tells a reply right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Sample:
    """One job. content: what it is about, in a canonical order and free of wording (JSON values); decides the split.
    always_train: never held out, because a demonstration shows it. checker: where many answers are right, tells
    whether a reply (without white space around it) is one of them; ``answer`` then is the one that was drawn.
    """

    family: str
    prompt: str
    answer: str
    content: Any
    always_train: bool = False
    checker: Callable[[str], bool] | None = field(default=None, compare=False)

    def check(self, reply: str) -> bool:
        """Whether a reply is right; only white space around it is forgiven."""
        reply = reply.strip()
        return reply == self.answer if self.checker is None else self.checker(reply)


Draw: TypeAlias = Callable[[Random], Sample]
