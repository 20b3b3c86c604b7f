"""Turns samples into training batches: rendered and tokenised, one canvas chosen, rows of like length together."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import torch
from nano_data import Split, mixture
from nano_sample import Sample
from tokenizers import Tokenizer
from torch import Tensor

PAD, TURN_END = "<pad>", "<turn|>"
_SYSTEMS = ("Be brief.", "You are a helpful assistant.", "Answer in English.", "Be kind and exact.")


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one training step.

    text: int64 [B, T], prompt and answer up to its end of turn, padded on the right. starts: [B], where the chosen
    canvas begins; prompts: [B], length of the prompt; lengths: [B], of the text. target: [B, C], the clean canvas.
    """

    text: Tensor
    prompts: Tensor
    lengths: Tensor
    starts: Tensor
    target: Tensor


def render(sample: Sample, system: str = "", thinking: bool = False, history: tuple[Sample, ...] = ()) -> str:
    """The prompt as chat_template.jinja renders it (a test compares the two)."""
    said = "<bos>"
    if system or thinking:
        said += "<|turn>system\n" + ("<|think|>\n" if thinking else "") + system + "<turn|>\n"
    for earlier in history:
        said += f"<|turn>user\n{earlier.prompt}<turn|>\n<|turn>model\n{earlier.answer}<turn|>\n"
    return said + f"<|turn>user\n{sample.prompt}<turn|>\n<|turn>model\n"


def conversation(sample: Sample, earlier: Sample, rng: random.Random) -> tuple[str, str]:
    """Prompt and reply as trained: mostly bare, now and then with a system turn, a turn before it, or a thought."""
    chance = rng.random()
    if chance < 0.04:
        return render(sample, system=rng.choice(_SYSTEMS)), sample.answer
    if chance < 0.08 and len(earlier.answer) < 100:
        return render(sample, history=(earlier,)), sample.answer
    if chance < 0.11:
        system = rng.choice(("", *_SYSTEMS))
        thought = f"<|channel>thought\nThis is a job of the kind {sample.family}.<channel|>"
        return render(sample, system=system, thinking=True), thought + sample.answer
    return render(sample), sample.answer


class Tokens:
    """The tokenizer and the ids that training needs of it."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.size = self.tokenizer.get_vocab_size()
        self.pad = self._control(PAD)
        self.end = self._control(TURN_END)

    def _control(self, name: str) -> int:
        found = self.tokenizer.token_to_id(name)
        if found is None:
            raise ValueError(f"the tokenizer has no {name}")
        return found

    def encode(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text).ids)


def collate(rows: list[tuple[list[int], list[int], int]], canvas: int, pad: int, whole: bool) -> Batch:
    """rows: prompt ids, reply ids with their end of turn, index of the canvas to denoise. Unless ``whole``, canvases
    are cut behind the longest reply: most of a canvas is padding, and it is enough to learn that now and then.
    """
    width = canvas if whole else min(canvas, -(-max(_rest(row, canvas) + 1 for row in rows) // 8) * 8)
    longest = -(-max(len(prompt) + len(reply) for prompt, reply, _ in rows) // 8) * 8
    text = torch.full((len(rows), longest), pad)
    target = torch.full((len(rows), width), pad)
    for i, (prompt, reply, block) in enumerate(rows):
        text[i, : len(prompt) + len(reply)] = torch.tensor(prompt + reply)
        piece = reply[block * canvas : (block + 1) * canvas]
        target[i, : len(piece)] = torch.tensor(piece)
    return Batch(
        text=text,
        prompts=torch.tensor([len(prompt) for prompt, _, _ in rows]),
        lengths=torch.tensor([len(prompt) + len(reply) for prompt, reply, _ in rows]),
        starts=torch.tensor([len(prompt) + block * canvas for prompt, _, block in rows]),
        target=target,
    )


def _rest(row: tuple[list[int], list[int], int], canvas: int) -> int:
    """Tokens of the reply on the row's canvas."""
    return min(canvas, len(row[1]) - row[2] * canvas)


def batches(
    tokens: Tokens,
    canvas: int,
    size: int,
    seed: int,
    skip: int,
    whole: float,
    split: Split = "train",
    weights: dict[str, float] | None = None,
) -> Iterator[Batch]:
    """An endless stream, made chunk by chunk; ``skip`` batches are left out, so that a resumed run goes on.
    whole: share of the batches with whole canvases. weights: how often each family is drawn, as in ``mixture``.
    """
    per_chunk = 32
    chunk, within = divmod(skip, per_chunk)
    while True:
        made = _chunk(tokens, canvas, size, per_chunk, seed * 1_000_003 + chunk, whole, split, weights)
        yield from made[within:]
        chunk, within = chunk + 1, 0


def _chunk(
    tokens: Tokens,
    canvas: int,
    size: int,
    count: int,
    seed: int,
    whole: float,
    split: Split,
    weights: dict[str, float] | None,
) -> list[Batch]:
    rng = random.Random(seed)
    drawn = list(islice(mixture(split, seed, weights), count * size + 1))
    rows = []
    for earlier, sample in pairwise(drawn):
        prompt, reply = conversation(sample, earlier, rng)
        ids = [*tokens.encode(reply), tokens.end]
        canvases = -(-len(ids) // canvas)
        # Of two draws the earlier: a canvas that has read those before it is the easier one.
        rows.append((tokens.encode(prompt), ids, min(rng.randrange(canvases), rng.randrange(canvases))))
    rows.sort(key=lambda row: (-(-_rest(row, canvas) // 16), len(row[0]) + len(row[1])))
    grouped = [collate(rows[i : i + size], canvas, tokens.pad, rng.random() < whole) for i in range(0, len(rows), size)]
    rng.shuffle(grouped)
    return grouped
