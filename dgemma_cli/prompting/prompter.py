"""From messages to the ids a model reads, and from the ids it writes to a reply."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dgemma_cli.errors import CheckpointError, UsageError
from dgemma_cli.prompting import reply
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.prompting.reply import CHANNEL, CHANNEL_END, Reply
from dgemma_cli.prompting.template import HINT, Template
from dgemma_cli.prompting.tokenizer import RESTORE, Tokenizer

__all__ = ["Message", "Prompter", "Reply"]

# Where tokenizer_config.json does not name them, templates find the tokens under the family's names.
_NAMES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}

# No text has a meaning for these, so a prompt hardly ever uses one.
_PRIVATE = range(0xF0000, 0xFFFFE)


class Prompter:
    """A checkpoint's tokenizer and chat template together.

    names: what the template knows tokens by, such as {"bos_token": "<bos>"}.
    """

    def __init__(self, tokenizer: Tokenizer, template: Template, names: Mapping[str, str]) -> None:
        self._tokenizer = tokenizer
        self._template = template
        self._names = names

    @classmethod
    def load(cls, folder: Path) -> Prompter:
        """Read tokenizer.json, and chat_template.jinja or the template in tokenizer_config.json.

        CheckpointError, naming the file, if one is missing or corrupt. The published tokenizer takes 1.2 s.
        """
        config = _read_config(folder / "tokenizer_config.json")
        template = Template(_read_template(folder, config))
        tokenizer = Tokenizer.from_file(folder / "tokenizer.json")
        names = {key: name for key, name in _NAMES.items() if tokenizer.control_id(name) is not None}
        for key, value in config.items():
            name = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(name, str):
                names[key] = name
        return cls(tokenizer, template, names)

    def encode(self, messages: Sequence[Message], thinking: bool = False) -> list[int]:
        """Ids of the whole prompt, up to where the model's turn begins.

        Control tokens come from the template alone. UsageError if there are no messages, if the template refuses
        them, or if thinking is asked of a template that knows none.
        """
        if not messages:
            raise UsageError("There is no message to answer.")
        if thinking and not self._template.reads("enable_thinking"):
            raise UsageError("This model cannot think first: its chat template has no thinking mode.")
        said = [message.said for message in messages]
        marker = _unused_character("".join(said), self._template.source)
        # What spells a control token in a message gets a marker within, so that neither the template nor the split
        # below takes it for one. The template must see the rest as it is: it trims, and may look at it.
        text = self._template.render(
            [
                {"role": message.role, "content": self._mark(content, marker)}
                for message, content in zip(messages, said, strict=True)
            ],
            {**self._names, "enable_thinking": thinking},
        )
        ids: list[int] = []
        for part in self._tokenizer.split(text):
            if isinstance(part, int):
                ids.append(part)
            else:
                ids.extend(self._tokenizer.encode(part.replace(marker, "")))
        return ids

    def encode_text(self, text: str) -> list[int]:
        """Ids of text without any template, behind the token that begins texts, if there is one."""
        begin = self._tokenizer.control_id(self._names.get("bos_token", ""))
        return [*([] if begin is None else [begin]), *self._tokenizer.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids without their control tokens."""
        return self._tokenizer.decode(ids)

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """One display string a token; joined they are ``decode(ids)``. See ``Tokenizer.pieces``."""
        return self._tokenizer.pieces(ids)

    def reply(self, ids: Sequence[int], prompt: Sequence[int] = ()) -> Reply:
        """Thinking and answer apart. prompt: what ``encode`` gave, for templates that open a thought themselves."""
        return reply.parse(self._tokenizer, ids, prompt)

    @property
    def thought_ids(self) -> tuple[int | None, int | None]:
        """Ids that begin and end a thought; None where the tokenizer has none."""
        return self._tokenizer.control_id(CHANNEL), self._tokenizer.control_id(CHANNEL_END)

    def _mark(self, text: str, marker: str) -> str:
        """``text`` with a marker behind the first character of every place that spells a control token."""
        parts: list[str] = []
        position = 0
        while place := self._tokenizer.next_control(text, position):
            after = place[0] + 1
            parts += [text[position:after], marker]
            position = after
        parts.append(text[position:])
        return "".join(parts)


def _unused_character(*texts: str) -> str:
    used = set().union(*texts)
    for code in _PRIVATE:
        if chr(code) not in used:
            return chr(code)
    raise UsageError("The messages use every private character of Unicode; none is left to mark text with.")


def _read_config(path: Path) -> dict[str, Any]:
    """tokenizer_config.json, or nothing where there is none."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is no JSON: {error}", RESTORE) from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds no JSON object.", RESTORE)
    return config


def _read_template(folder: Path, config: Mapping[str, Any]) -> str:
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path} is no UTF-8 text.", HINT) from error
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if not isinstance(template, str):
        raise CheckpointError(f"{folder} has no chat template (chat_template.jinja).", HINT)
    return template
