"""From a model's name to something that writes: its files found, its weights loaded, its language known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_cli.engine.options import CONTEXT
from dgemma_cli.memory import USUAL, Work
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.terminal.narrator import Language
from dgemma_cli.units import size

if TYPE_CHECKING:
    from dgemma_cli.commands.before_loading import Length
    from dgemma_cli.commands.memory_report import Report
    from dgemma_cli.device import Choice
    from dgemma_cli.engine.events import Event
    from dgemma_cli.engine.options import Options
    from dgemma_cli.engine.session import Session as Conversation
    from dgemma_cli.engine.shelf import Shelf
    from dgemma_cli.fit import Fit
    from dgemma_cli.model.config import ModelConfig
    from dgemma_cli.model.model import Model
    from dgemma_cli.prompting.prompter import Prompter


@dataclass(frozen=True, slots=True)
class Session:
    """A model ready to write, and where it does. report: what there is memory for, None for a model that is small."""

    name: str
    folder: Path
    choice: Choice
    prompter: Prompter
    model: Model
    report: Report | None = None

    def encode(self, messages: Sequence[Message], thinking: bool) -> list[int]:
        """The prompt's ids."""
        return self.prompter.encode(messages, thinking)

    def encode_text(self, text: str) -> list[int]:
        """Ids of a text that is no chat."""
        return self.prompter.encode_text(text)

    def check(self, options: Options) -> None:
        """Raises UsageError where settings contradict each other, as ``generate`` would, but before any work."""
        from dgemma_cli.engine.sampler import Sampler

        Sampler.resolve(options, self.model.defaults)

    def check_memory(self, options: Options) -> None:
        """Raises OutOfMemory where a conversation's replies with these settings would take more than was free."""
        from dgemma_cli.commands.before_loading import work_of

        if self.report is not None:
            self.report.check(work_of(options, goes_on=True))

    def generate(self, ids: Sequence[int], options: Options) -> Iterator[Event]:
        """The events of one reply."""
        from dgemma_cli.engine.generate import generate

        return generate(self.model, ids, options)

    def steps(self, options: Options) -> str:
        """Which loop runs a canvas's steps, and why, in words."""
        from dgemma_cli.engine.choice import choose

        return choose(self.model, options)[1]

    def converse(self) -> Conversation:
        """A conversation that keeps its cache from turn to turn."""
        from dgemma_cli.engine.session import Session as Conversation

        return Conversation(self.model)

    def shelf(self, budget: int, parallel: int, reserved: int) -> Shelf:
        """What writes several replies at a time; caches at rest take ``budget`` bytes at the most, and what is not
        used of the bytes reserved for each reply.
        """
        from dgemma_cli.engine.shelf import Shelf

        return Shelf(self.model, budget, parallel, reserved)

    def in_use(self) -> dict[str, int]:
        """Bytes in use, by where they are."""
        from dgemma_cli.engine.in_use import in_use

        return in_use(self.model.device)

    def is_auto(self) -> tuple[bool, bool]:
        """Whether its device, and its dtype on that device, are what "auto" would be."""
        from dgemma_cli.device import choose

        device = choose("auto", "auto", self.folder).device
        dtype = choose(self.choice.device, "auto", self.folder).dtype
        return device == self.choice.device, dtype == self.choice.dtype

    @property
    def context(self) -> int:
        """Tokens of a prompt and its reply together."""
        return self.model.config.max_context

    @property
    def vocabulary(self) -> int:
        """How many ids there are."""
        return self.model.config.vocab_size

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


def load_session(
    name: str,
    device: str,
    dtype: str,
    progress: Callable[[int, int], None] | None,
    fit: Fit = "auto",
    tell: Callable[[str], None] | None = None,
    work: Work = USUAL,
    flags: tuple[str, ...] = ("--best-of",),
    context: int | Callable[[Prompter, ModelConfig], Length] = CONTEXT,
) -> Session:
    """Find and load a model. progress: bytes loaded and bytes in all. fit: how it may be made to fit. tell: is told in
    a line if it is changed for that, beforehand, and if a GPU has to do without its fast kernels. work: how canvases
    will be denoised, for which there must be memory. context: tokens that there must be memory for, or how to tell.

    Raises ModelUnavailable, CheckpointError, NoDevice, OutOfMemory.
    """
    from dgemma_cli.catalog.resolve import resolve
    from dgemma_cli.commands.before_loading import judge_before_loading
    from dgemma_cli.weights.checkpoint import read_checkpoint

    location = resolve(name)

    from dgemma_cli.prompting.prompter import Prompter

    prompter = Prompter.load(location.folder)
    checkpoint = read_checkpoint(location.folder)
    judge = partial(judge_before_loading, location.name, checkpoint, device, dtype, fit, work, flags)
    if isinstance(context, int):
        report = judge(context=context)
    else:
        report = judge(partial(context, prompter, checkpoint.config))
    plan = report.plan if report is not None else None
    if plan is not None and not plan.as_stored and tell is not None:
        tell(f"to fit into {size(report.room if report else 0)}: {plan}")

    from dgemma_cli.device import choose  # torch, a second or two: after what can be told without it
    from dgemma_cli.engine.trust import proven
    from dgemma_cli.weights.loader import load_model
    from dgemma_cli.weights.repack import Losses

    choice = choose(device, dtype, location.folder)
    if device == "auto" and report is not None and report.device not in (choice.device, "cuda:0"):
        choice = replace(choice, device=report.device, why_device="auto: the GPU with the most free memory")
    if plan is None:
        model = load_model(checkpoint, choice.device, choice.dtype, progress, tell=tell)
        return Session(location.name, location.folder, choice, prompter, proven(model, tell, begin=tell))
    losses = Losses()
    model = load_model(
        checkpoint, choice.device, choice.dtype, progress, plan.recipe, losses, plan.offloaded, tell=tell
    )
    model = proven(model, tell, begin=tell)
    rounding = ", ".join(f"{part} {loss.relative:.1%}" for part, loss in losses.parts().items())
    choice = replace(choice, fit=str(plan), rounding=rounding)
    return Session(location.name, location.folder, choice, prompter, model, report)
