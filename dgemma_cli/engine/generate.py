"""The loop over canvases: encode, denoise until stable, commit, again until an EOS. Yields events, prints nothing."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from dgemma_cli.engine.block import Block, write
from dgemma_cli.engine.choice import choose
from dgemma_cli.engine.denoise import Denoiser, Task, denoise
from dgemma_cli.engine.events import (
    BlockCommitted,
    BlockStarted,
    Event,
    Finished,
    PromptEncoded,
    Statistics,
    StopReason,
)
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.sampler import Sampler
from dgemma_cli.errors import UsageError
from dgemma_cli.model.cache import KVCache
from dgemma_cli.model.model import Model
from dgemma_cli.sampling.draws import Draws, SeededDraws, seeds
from dgemma_cli.sampling.held import Held


@dataclass(slots=True)
class _Tally:
    """What the blocks of one generation come to. ids: the reply so far."""

    ids: list[int] = field(default_factory=list)
    valid: int = 0
    blocks: int = 0
    steps: int = 0
    weighted_steps: int = 0
    converged: bool = True
    repaired: int = 0
    trimmed: int = 0

    def add(self, block: Block) -> None:
        valid = len(block.ids) + (block.reason == "eos")
        self.ids += block.ids
        self.valid += valid
        self.blocks += 1
        self.steps += block.steps
        self.weighted_steps += block.steps * valid
        self.converged = self.converged and block.converged
        self.repaired += block.repaired
        self.trimmed += block.trimmed


def generate(
    model: Model,
    ids: Sequence[int],
    options: Options | None = None,
    cache: KVCache | None = None,
    draws: Sequence[Draws] | None = None,
    denoiser: Denoiser | None = None,
) -> Iterator[Event]:
    """Write a reply to the prompt ``ids`` (int token ids, the whole of it).

    cache: holds the first ``cache.length`` of ``ids`` already, and is extended; the last block is not encoded.
    draws: replaces the seeded randomness, one for each canvas side by side. denoiser: what runs a canvas's steps; by
    default the loop that ``choice`` chooses, or the plain one for draws of one's own. Raises UsageError for an empty
    prompt, one that leaves no room for a canvas in the context, and settings that contradict each other.
    """
    options = options or Options()
    sampler = Sampler.resolve(options, model.defaults)
    cache = model.new_cache() if cache is None else cache
    canvas_length, context = model.config.canvas_length, model.config.max_context
    if len(ids) <= cache.length:
        raise UsageError("The prompt is empty." if not ids else "The prompt holds nothing beyond the cache.")
    model.config.check_prompt(len(ids))
    given = _given(options, model, len(ids))
    eos = torch.tensor(sorted(model.defaults.eos_ids), dtype=torch.int64, device=model.device)
    seed = secrets.randbits(32) if options.seed is None else options.seed
    if denoiser is None:
        denoiser = choose(model, options)[0] if draws is None else denoise
    if draws is None:
        vocab, device = model.config.vocab_size, model.device
        draws = [SeededDraws(one, canvas_length, vocab, device) for one in seeds(seed, sampler.best_of)]

    started = time.perf_counter()
    cached = cache.length
    model.encode(torch.tensor(ids[cached:], dtype=torch.int64), cache)
    _wait(model)
    prefill = time.perf_counter() - started
    yield PromptEncoded(len(ids), cached, prefill)

    tally = _Tally()
    first_block = 0.0
    reason: StopReason | None = None
    was_trimmed = False
    while reason is None:
        index, start = tally.blocks, len(tally.ids)
        yield BlockStarted(index, canvas_length, sampler.steps * (2 if options.repair else 1))
        held = Held.of(given, start, canvas_length, eos)
        task = Task(model, cache, sampler, draws, index, options.max_tokens - start, options.drafts, held)
        block = yield from write(task, denoiser, tally.ids, options.repair, options.guard)
        tally.add(block)
        reason = block.reason
        # A loop is cut off, and the text goes on behind the cut; one that comes again at once is there to stay.
        if reason is None and block.trimmed and was_trimmed:
            reason = "repetition"
        if reason is None and cache.length + len(block.ids) + canvas_length > context:
            reason = "context"
        was_trimmed = block.trimmed > 0
        first_block = first_block or time.perf_counter() - started
        yield BlockCommitted(
            index=index,
            ids=tuple(block.ids),
            steps=block.steps,
            converged=block.converged,
            settled=block.settled,
            repaired=block.repaired,
            trimmed=block.trimmed,
        )
        if reason is None and block.ids:
            model.encode(torch.tensor(block.ids, dtype=torch.int64), cache)
    yield Finished(
        reason,
        Statistics(
            prompt_tokens=len(ids),
            cached_tokens=cached,
            tokens=len(tally.ids),
            valid_tokens=tally.valid,
            blocks=tally.blocks,
            steps=tally.steps,
            converged=tally.converged,
            effective_steps=tally.weighted_steps / max(1, tally.valid),
            prefill_seconds=prefill,
            first_block_seconds=first_block,
            seconds=time.perf_counter() - started,
            seed=seed,
            repaired=tally.repaired,
            trimmed=tally.trimmed,
        ),
    )


def _given(options: Options, model: Model, prompt: int) -> Mapping[int, int]:
    """The held positions, checked. Raises UsageError for one that the reply cannot reach or an id that is none."""
    given = options.held or {}
    config, ends = model.config, model.defaults.eos_ids
    last = max(given, default=-1)
    length = config.canvas_length
    if last >= options.max_tokens + (given.get(last) in ends):
        raise UsageError(f"Position {last} is held, but max-tokens is {options.max_tokens}.")
    if prompt + (last // length + 1) * length > config.max_context:
        raise UsageError(f"Position {last} is held, which the context of {config.max_context:,} cannot hold.")
    for position, token in given.items():
        if token >= config.vocab_size:
            raise UsageError(f"The id {token} held at position {position} is not in the vocabulary.")
        if token in ends and position < last:
            raise UsageError(f"The reply would end at position {position}, but position {last} is held as well.")
    return given


def _wait(model: Model) -> None:
    """Let the device finish, so that a time read next is true."""
    if model.device.type == "cuda":
        torch.cuda.synchronize(model.device)
