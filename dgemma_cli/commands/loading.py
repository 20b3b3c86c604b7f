"""From a model's name to something that writes: its files found, its weights loaded, its language known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_cli.prompting.prompter import Message, Prompter
from dgemma_cli.terminal.narrator import Language

if TYPE_CHECKING:
    from dgemma_cli.device import Choice
    from dgemma_cli.engine.events import Event
    from dgemma_cli.engine.options import Options
    from dgemma_cli.engine.session import Session as Conversation
    from dgemma_cli.model.model import Model


@dataclass(frozen=True, slots=True)
class Session:
    """A model ready to write, and where it does."""

    name: str
    folder: Path
    choice: Choice
    prompter: Prompter
    model: Model

    def encode(self, messages: Sequence[Message], thinking: bool) -> list[int]:
        """The prompt's ids."""
        return self.prompter.encode(messages, thinking)

    def generate(self, ids: Sequence[int], options: Options) -> Iterator[Event]:
        """The events of one reply."""
        from dgemma_cli.engine.generate import generate

        return generate(self.model, ids, options)

    def converse(self) -> Conversation:
        """A conversation that keeps its cache from turn to turn."""
        from dgemma_cli.engine.session import Session as Conversation

        return Conversation(self.model)

    @property
    def room(self) -> int:
        """Tokens a prompt may have, so that a canvas still fits behind it."""
        return self.model.config.max_context - self.model.config.canvas_length

    def language(self, prompt: Sequence[int]) -> Language:
        """How to read the reply to ``prompt``."""
        begin, end = self.prompter.thought_ids
        return Language(
            pieces=self.prompter.pieces,
            reply=lambda ids: self.prompter.reply(ids, prompt),
            ends=self.model.defaults.eos_ids,
            thought_begin=begin,
            thought_end=end,
            thinking=next((token == begin for token in reversed(prompt) if token in (begin, end)), False),
        )


def load_session(name: str, device: str, dtype: str, progress: Callable[[int, int], None] | None) -> Session:
    """Find and load a model. progress: bytes loaded and bytes in all.

    Raises ModelUnavailable, CheckpointError, NoDevice, OutOfMemory.
    """
    from dgemma_cli.catalog.resolve import resolve

    location = resolve(name)
    prompter = Prompter.load(location.folder)

    from dgemma_cli.device import choose  # torch, a second or two: after what can be told without it
    from dgemma_cli.weights.loader import load_model

    choice = choose(device, dtype, location.folder)
    model = load_model(location.folder, choice.device, choice.dtype, progress)
    return Session(location.name, location.folder, choice, prompter, model)
