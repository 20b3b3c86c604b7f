"""What was said: the turns of a conversation, always well-formed, the thinking kept apart."""

from __future__ import annotations

from dataclasses import dataclass, field

from dgemma_cli.errors import UsageError
from dgemma_cli.prompting.conversation import Message


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer. thinking: the model's, which no later turn sees. cut: the answer was cancelled."""

    user: str
    answer: str
    thinking: str = ""
    cut: bool = False


@dataclass(slots=True)
class Dialogue:
    """A conversation. question: asked and not answered yet (cancelled, failed, or on its way); not a turn."""

    system: str | None = None
    turns: list[Turn] = field(default_factory=list)
    question: str | None = None

    def messages(self) -> list[Message]:
        """What the model is shown: the system prompt, the turns without their thinking, and the question."""
        found = [Message("system", self.system)] if self.system else []
        for turn in self.turns:
            found += [Message("user", turn.user), Message("assistant", turn.answer)]
        if self.question is not None:
            found.append(Message("user", self.question))
        return found

    def ask(self, text: str) -> None:
        """Put a question; it takes the place of one that has no answer."""
        self.question = text

    def answer(self, text: str, thinking: str = "", cut: bool = False) -> None:
        """Answer the question, which makes it a turn."""
        if self.question is None:
            raise ValueError("there is no question to answer")
        self.turns.append(Turn(self.question, text, thinking, cut))
        self.question = None

    def undo(self) -> str:
        """Take back the question if there is one, else the last turn. Returns what the user had written."""
        if self.question is not None:
            text, self.question = self.question, None
            return text
        if not self.turns:
            raise UsageError("There is nothing to take back.")
        return self.turns.pop().user

    def drop(self, count: int) -> None:
        """Forget the ``count`` oldest turns."""
        if not 0 < count <= len(self.turns):
            raise UsageError(f"There are {len(self.turns)} turns; {count} of them cannot be dropped.")
        del self.turns[:count]

    def clear(self) -> None:
        """Forget all that was said; the system prompt stays."""
        self.turns.clear()
        self.question = None

    @property
    def last(self) -> str | None:
        """What the user wrote last."""
        if self.question is not None:
            return self.question
        return self.turns[-1].user if self.turns else None
