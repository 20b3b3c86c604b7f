"""From the engine's events to entries in text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from dgemma_cli.engine.events import BlockCommitted, BlockStarted, Denoised, Event, Finished, PromptEncoded
from dgemma_cli.terminal.entries import Block, Commit, Entry, Finish, Prompt, Step


class Reply(Protocol):
    """A reply with its thinking apart."""

    @property
    def thinking(self) -> str: ...
    @property
    def answer(self) -> str: ...
    @property
    def closed(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Language:
    """How to read a model's ids.

    pieces: the text each id adds. reply: a whole reply, thinking and answer apart. ends: ids that end a reply.
    thought_begin, thought_end: ids around a thought; None where the model has none. thinking: the prompt has
    already begun one.
    """

    pieces: Callable[[Sequence[int]], list[str]]
    reply: Callable[[Sequence[int]], Reply]
    ends: frozenset[int]
    thought_begin: int | None
    thought_end: int | None
    thinking: bool = False


class Narrator:
    """Tells events as entries; keeps the reply so far."""

    def __init__(self, language: Language) -> None:
        self._language = language
        self._ids: list[int] = []
        self._answer = _Growing()
        self._thinking = _Growing()
        self._in_thought = language.thinking

    def tell(self, event: Event) -> Entry:
        """The entry of one event. Call it with every event, in order."""
        match event:
            case PromptEncoded():
                return Prompt(event.tokens, event.cached, event.seconds)
            case BlockStarted():
                return Block(event.index, event.length, event.cap)
            case Denoised():
                return self._step(event)
            case BlockCommitted():
                return self._commit(event)
            case Finished():
                return self._finish(event)

    def _step(self, event: Denoised) -> Step:
        ends = self._language.ends
        return Step(
            block=event.block,
            step=event.step,
            draft=tuple(self._language.pieces(event.canvas)),
            accepted=event.accepted,
            changed=event.changed,
            entropy=event.entropy,
            thought=self._thought(event.canvas),
            end=next((index for index, token in enumerate(event.canvas) if token in ends), len(event.canvas)),
        )

    def _thought(self, ids: Sequence[int]) -> tuple[bool, ...]:
        inside = self._in_thought
        begin, end = self._language.thought_begin, self._language.thought_end
        if not inside and begin not in ids:
            return (False,) * len(ids)
        marks = []
        for token in ids:
            if token == begin:
                inside = True
            marks.append(inside)
            if token == end:
                inside = False
        return tuple(marks)

    def _commit(self, event: BlockCommitted) -> Commit:
        for token in event.ids:
            if token in (self._language.thought_begin, self._language.thought_end):
                self._in_thought = token == self._language.thought_begin
        self._ids.extend(event.ids)
        reply = self._language.reply(self._ids)
        return Commit(
            block=event.index,
            text=self._answer.grow(_certain(reply.answer)),
            thinking=self._thinking.grow(_certain(reply.thinking)),
            tokens=len(event.ids),
            steps=event.steps,
            converged=event.converged,
            settled=event.settled,
            repaired=event.repaired,
            trimmed=event.trimmed,
        )

    def _finish(self, event: Finished) -> Finish:
        reply = self._language.reply(self._ids)
        self._thinking.grow(reply.thinking)
        rest = self._answer.grow(reply.answer)
        figures = event.statistics
        return Finish(
            text=self._answer.text,
            thinking=self._thinking.text,
            rest=rest,
            thought_closed=reply.closed,
            prompt_tokens=figures.prompt_tokens,
            tokens=figures.tokens,
            blocks=figures.blocks,
            steps=figures.steps,
            tokens_per_forward=figures.tokens_per_forward,
            effective_steps=figures.effective_steps,
            converged=figures.converged,
            prefill_seconds=figures.prefill_seconds,
            first_block_seconds=figures.first_block_seconds,
            seconds=figures.seconds,
            tokens_per_second=figures.tokens_per_second,
            stop_reason=event.reason,
            seed=figures.seed,
            repaired=figures.repaired,
            trimmed=figures.trimmed,
        )


class _Growing:
    """A text told bit by bit. What was told stays told: should a later reading not begin with it (a thought whose
    beginning was lost takes text back), the new reading follows as a paragraph, so that nothing is missing.
    """

    def __init__(self) -> None:
        self.text = ""
        self._reading = ""

    def grow(self, reading: str) -> str:
        """What to add to ``text`` so that it tells ``reading``; adds it."""
        if self._reading.startswith(reading):
            return ""
        known = reading.startswith(self._reading)
        more = reading[len(self._reading) :] if known else f"\n\n{reading}"
        self._reading = reading
        self.text += more
        return more


def _certain(text: str) -> str:
    """``text`` without an end that the next block may change: space (a reply ends in none) and half a character."""
    return text.rstrip("\ufffd").rstrip()
