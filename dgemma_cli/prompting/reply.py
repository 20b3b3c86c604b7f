"""A reply taken apart: what the model thought, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dgemma_cli.prompting.tokenizer import Tokenizer

# The control tokens' names in the tokenizers of the Gemma 4 family.
CHANNEL, CHANNEL_END = "<|channel>", "<channel|>"
ENDS = ("<turn|>", "<eos>", "<|tool_response>")

# A channel begins with its name on a line of its own: "thought".
_NAME = re.compile(r"\A\s*\w+[ \t]*(\n|\Z)")


@dataclass(frozen=True, slots=True)
class Reply:
    """thinking: the text of all thought channels, without their names. answer: the text outside of them.
    closed: False if the reply ends within a thought.
    """

    thinking: str
    answer: str
    closed: bool


def parse(tokenizer: Tokenizer, ids: Sequence[int], prompt: Sequence[int] = ()) -> Reply:
    """Split a reply's ids by its channel tokens, never by text that merely spells them.

    prompt: the ids before the reply, for templates that open a channel the model then writes on in. Everything
    from the first end token on is dropped. A channel's end without a beginning, before any channel, ends a thought
    whose first token was lost.
    """
    begin, end = tokenizer.control_id(CHANNEL), tokenizer.control_id(CHANNEL_END)
    stops = {tokenizer.control_id(name) for name in ENDS}
    thoughts: list[str] = []
    answer: list[int] = []
    part: list[int] = []  # of the channel or the answer that is being read
    thinking = ended = False  # within a channel; past the end of one

    def finish() -> None:
        if thinking:
            thoughts.append(_NAME.sub("", tokenizer.decode(part), count=1).strip())
        else:
            answer.extend(part)
        part.clear()

    opened = _opened(prompt, begin, end)
    for i in [*opened, *ids]:
        if i in stops:
            break
        if i == begin:
            finish()
            thinking = True
        elif i == end:
            thinking = thinking or not ended
            finish()
            thinking, ended = False, True
        else:
            part.append(i)
    finish()
    text = tokenizer.decode(answer).lstrip("\n").rstrip()
    return Reply("\n\n".join(filter(None, thoughts)), text, closed=not thinking)


def _opened(prompt: Sequence[int], begin: int | None, end: int | None) -> Sequence[int]:
    """The prompt's last channel if the prompt leaves it open, else nothing."""
    for place in range(len(prompt) - 1, -1, -1):
        if prompt[place] == end:
            return ()
        if prompt[place] == begin:
            return prompt[place:]
    return ()
