"""A chat that goes on: the model, what was said, how it is set, and where it is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from dgemma_cli.chat import reply
from dgemma_cli.chat.dialogue import Dialogue
from dgemma_cli.chat.records import Record
from dgemma_cli.chat.reply import Display, Outcome
from dgemma_cli.chat.settings import Settings
from dgemma_cli.chat.store import Journal, Store
from dgemma_cli.errors import DiskError, OutOfMemory, UsageError
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.terminal.cancel import Cancellation
from dgemma_cli.terminal.entries import Start
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.writing import ContextFull, Conversation, Writer

T = TypeVar("T")

FULL = 0.9  # share of the context from which on a chat warns


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file's text, for the next question."""

    name: str
    text: str


@dataclass(slots=True)
class Draft:
    """What the next prompt begins with. editor: open it in $EDITOR. replaces: sending it takes the last turn back."""

    text: str = ""
    editor: bool = False
    replaces: bool = False


@dataclass(slots=True)
class Chat:
    """The state of a chat. The slash commands change it; the questions go through ``ask``.

    load: finds and loads another model. store: None if nothing is to be kept.
    """

    loaded: Writer | None
    load: Callable[[str], Writer]
    settings: Settings
    environment: Environment
    live: bool
    color: bool
    store: Store | None
    dialogue: Dialogue = field(default_factory=Dialogue)
    journal: Journal | None = None
    cancellation: Cancellation = field(default_factory=Cancellation)
    conversation: Conversation | None = None
    attachments: list[Attachment] = field(default_factory=list)
    draft: Draft = field(default_factory=Draft)
    record: Path | None = None
    outcome: Outcome | None = None
    leaving: bool = False

    @property
    def model(self) -> Writer:
        """The model. Raises UsageError if the last change of models left none."""
        if self.loaded is None:
            raise UsageError("No model is loaded.", "Load one: /model NAME")
        return self.loaded

    def ask(self, text: str, seed: int | None = None) -> None:
        """Put a question with what is attached to it, and show the answer. seed: for this reply only.

        A reply that brings no answer (cancelled early, failed) leaves the question open; the turns stay as they were.
        """
        text = "\n\n".join([*(f"{file.name}:\n\n{file.text}" for file in self.attachments), text])
        Message("user", text)  # refuses what is no text
        if self.draft.replaces:
            self.undo()
        self.draft = Draft()
        self.attachments.clear()
        self.change({"record": "user", "text": text}, lambda: self.dialogue.ask(text))
        self._answer(seed)

    def regenerate(self, seed: int | None) -> None:
        """Answer the last question again; without a seed with another than before."""
        if self.dialogue.last is None:
            raise UsageError("There is no question yet.")
        if self.dialogue.question is None:
            text = self.undo()
            self.change({"record": "user", "text": text}, lambda: self.dialogue.ask(text))
        if seed is None and self.settings.options.seed is not None:
            self.note("with a random seed: the one that is set would give the same answer")
            self._answer(None, random=True)
        else:
            self._answer(seed)

    def undo(self) -> str:
        """Take back the last turn, or the open question. Returns what the user had written."""
        if self.dialogue.last is None:
            raise UsageError("There is nothing to take back.")
        return self.change({"record": "undo"}, self.dialogue.undo)

    def set_system(self, text: str | None) -> None:
        """Set or remove the system prompt."""
        if text is not None:
            Message("system", text)  # refuses what is no text

        def act() -> None:
            self.dialogue.system = text

        self.change({"record": "system", "text": text}, act)

    def change(self, record: Record, act: Callable[[], T]) -> T:
        """Change the dialogue, and keep the change: Ctrl-C does not come between them."""
        with self.cancellation.shielded():
            result = act()
            self._keep(record)
        return result

    def replace(self, dialogue: Dialogue) -> None:
        """Go on with another conversation, in a file of its own."""
        self.close()
        self.dialogue = dialogue
        if dialogue.last is not None:
            self._keep()

    def tokens(self) -> int:
        """How many tokens the conversation takes as a prompt."""
        messages = self.dialogue.messages()
        return self.model.count(messages, self.settings.thinking) if messages else 0

    def note(self, text: str) -> None:
        """Tell the user something beside the conversation."""
        for line in text.split("\n"):
            self.environment.say(line, dim=True)

    def close(self) -> None:
        """Close the conversation's file."""
        if self.journal is not None:
            self.journal.close()
            self.journal = None

    def _answer(self, seed: int | None, random: bool = False) -> None:
        options = replace(self.settings.options, drafts=True)
        if seed is not None or random:
            options = replace(options, seed=seed)
        model = self.model
        if self.conversation is None:
            self.conversation = model.converse()
        start = Start(model.name, model.device, model.dtype, self.dialogue.question or "", self.dialogue.system)
        record, self.record = self.record, None
        try:
            outcome = reply.show(
                self.conversation.reply(self.dialogue.messages(), self.settings.thinking, options),
                start,
                Display(
                    self.environment,
                    self.live and model.tells_steps,
                    self.color,
                    self.settings.markdown,
                    self.settings.show_thinking,
                ),
                self.cancellation,
                record,
            )
        except ContextFull as error:
            raise UsageError(
                error.message,
                "Drop the oldest turns with /compact, then ask again with /regen; or begin anew with /clear.",
            ) from None
        except Exception as error:
            if isinstance(error, MemoryError | OutOfMemory) or type(error).__name__ == "OutOfMemoryError":
                self.conversation.forget()
                raise OutOfMemory(
                    "The memory ran out; the conversation is whole, and its cache was freed.",
                    "Ask again with /regen, shorten it with /compact, or lower /set max-tokens.",
                ) from error
            raise
        self.outcome = outcome
        self._take(outcome)

    def _take(self, outcome: Outcome) -> None:
        """Put an answer into the history and say what there is to say about it."""
        cut = outcome.finish is None
        if outcome.text.strip():
            text, thinking = outcome.text, outcome.thinking
            self.change(
                {"record": "assistant", "text": text, "thinking": thinking, "cut": cut, "model": self.model.name},
                lambda: self.dialogue.answer(text, thinking, cut),
            )
            if cut:
                self.note("cancelled; what was finished stays in the conversation (/undo takes it back)")
        elif cut:
            self.note("cancelled; nothing was finished (/regen asks again, /edit changes the question)")
        for remark in outcome.remarks():
            self.note(f"warning: {remark}")
        if outcome.finish is not None and not outcome.text.strip():
            if outcome.thinking and not self.settings.show_thinking:
                self.environment.whisper(outcome.thinking.rstrip() + "\n")
            self.note("no answer came, so the question stays open (/regen asks again)")
        if self.settings.stats and outcome.figures():
            self.note(outcome.figures())
        if outcome.prompt is None or outcome.finish is None:
            return
        used = outcome.prompt.tokens + (outcome.finish.tokens or 0)
        if used > FULL * self.model.room:
            self.note(f"the context is {used / self.model.room:.0%} full: /compact drops the oldest turns")

    def _keep(self, *records: Record) -> None:
        """Write down what happened. A disk that fails is told once and ends the keeping, not the chat."""
        if self.store is None:
            return
        try:
            if self.journal is not None:
                self.journal.write(*records)
            elif self.dialogue.last is not None:  # a conversation without a word is not kept
                self.journal = self.store.create(self.model.name, self.dialogue)
        except DiskError as error:
            self.note(f"warning: {error.message} This conversation is not kept from here on.")
            self.close()
            self.store = None
