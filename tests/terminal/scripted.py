"""A model that plays from a script: it writes a given reply, block by block and step by step, with no torch.

Each character of the reply is a token. Positions settle from left to right over the steps of a block.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from dgemma_cli.engine.events import (
    BlockCommitted,
    BlockStarted,
    Denoised,
    Event,
    Finished,
    PromptEncoded,
    Statistics,
)
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import OutOfMemory
from dgemma_cli.terminal.narrator import Language

END = 0x110000  # ids are code points; these lie beyond them
BEGIN_THOUGHT = 0x110001
END_THOUGHT = 0x110002
_CONTROL = (END, BEGIN_THOUGHT, END_THOUGHT)


@dataclass(frozen=True)
class Reply:
    thinking: str
    answer: str
    closed: bool


def pieces(ids: Sequence[int]) -> list[str]:
    return ["" if token in _CONTROL else chr(token) for token in ids]


def reply(ids: Sequence[int]) -> Reply:
    """Thoughts stand between their ids; nothing is trimmed."""
    thinking, answer, inside = [], [], False
    for token in ids:
        if token == BEGIN_THOUGHT:
            inside = True
        elif token == END_THOUGHT:
            inside = False
        else:
            (thinking if inside else answer).append(chr(token))
    return Reply("".join(thinking), "".join(answer), not inside)


LANGUAGE = Language(pieces, reply, frozenset({END}), BEGIN_THOUGHT, END_THOUGHT)


def spell(text: str, thinking: str = "") -> list[int]:
    """The ids of a reply."""
    thought = [BEGIN_THOUGHT, *map(ord, thinking), END_THOUGHT] if thinking else []
    return [*thought, *map(ord, text)]


def script(
    ids: Sequence[int], canvas: int = 16, steps: int = 4, converges: bool = True, seed: int = 7
) -> Iterator[Event]:
    """The events of a reply of ``ids`` on canvases of ``canvas`` positions, ``steps`` steps each."""
    yield PromptEncoded(5, 0, 0.25)
    blocks = [list(ids[start : start + canvas]) for start in range(0, len(ids), canvas)] or [[]]
    if len(blocks[-1]) == canvas:
        blocks.append([])  # where the end token is
    for index, block in enumerate(blocks):
        yield BlockStarted(index, canvas, 48)
        final = (block + [END] * canvas)[:canvas]
        for step in range(1, steps + 1):
            sure = canvas * step // steps
            draft = tuple(token if place < sure else ord("?") for place, token in enumerate(final))
            yield Denoised(
                block=index,
                step=step,
                canvas=draft,
                accepted=tuple(place < sure for place in range(canvas)),
                entropy=tuple(0.001 if place < sure else 3.5 for place in range(canvas)),
                changed=tuple(step == 1 or canvas * (step - 1) // steps <= place < sure for place in range(canvas)),
            )
        yield BlockCommitted(index, tuple(block), steps, converges, len(block))
    yield Finished(
        "eos",
        Statistics(
            prompt_tokens=5,
            cached_tokens=0,
            tokens=len(ids),
            valid_tokens=len(ids) + 1,
            blocks=len(blocks),
            steps=len(blocks) * steps,
            converged=converges,
            effective_steps=float(steps),
            prefill_seconds=0.25,
            first_block_seconds=0.5,
            seconds=2.0,
            seed=seed,
        ),
    )


@dataclass
class ScriptedSession:
    """Stands where ``commands.loading.Session`` stands."""

    events: Callable[[], Iterator[Event]]
    name: str = "scripted"
    folder: Path = Path("models/scripted")
    choice: Any = field(
        default_factory=lambda: SimpleNamespace(
            device="cpu",
            dtype="float32",
            why_device="as asked",
            why_dtype="auto: a small model on the CPU",
            fit="as stored",
        )
    )
    model: Any = field(default_factory=lambda: SimpleNamespace(skipped=0, kernels="scripted kernels"))
    messages: list[Any] = field(default_factory=list)
    options: list[Options] = field(default_factory=list)
    thinking: list[bool] = field(default_factory=list)

    def encode(self, messages: Sequence[Any], thinking: bool) -> list[int]:
        self.messages.extend(messages)
        self.thinking.append(thinking)
        return [1, 2, 3, 4, 5]

    def generate(self, ids: Sequence[int], options: Options) -> Iterator[Event]:
        self.options.append(options)
        for event in self.events():
            if options.drafts or not isinstance(event, Denoised):
                yield event

    def steps(self, options: Options) -> str:
        return f"scripted, preset {options.preset}"

    def check_memory(self, options: Options) -> None:
        if options.best_of is not None and options.best_of > 4:
            raise OutOfMemory("That needs 9 GB in all, 5 GB were free on cuda:0.", "There is memory for best-of 4.")

    def language(self, prompt: Sequence[int]) -> Language:
        return LANGUAGE


def slowly(events: Iterator[Event], seconds: float) -> Iterator[Event]:
    """``events``, each step taking ``seconds``."""
    for event in events:
        if isinstance(event, Denoised):
            time.sleep(seconds)
        yield event
