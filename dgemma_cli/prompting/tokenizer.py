"""The checkpoint's tokenizer.json: text to ids and back, with control tokens kept apart from text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import tokenizers

from dgemma_cli.errors import CheckpointError

RESTORE = "Restore the file, or fetch the model again with `dgemma pull`."

# A byte-fallback token: one byte of a character that the vocabulary lacks.
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class Tokenizer:
    """Encodes plain text and decodes ids; control tokens are reached by name only (``control_id``).

    ``encode`` never yields a control token: text that spells one is ordinary text to it. A control token is
    an added token that is marked special, or that is no text: see ``_is_text``. In Gemma's tokenizer these are
    turns, channels, tools, media, ``<bos>`` and its like, ``<mask>``, ``[multimodal]`` and ``<unused…>``;
    runs of newlines, tabs and spaces, and HTML tags are text.

    The decoder must be one that joins what each token stands for (Gemma's does), so that ``pieces`` can be told.
    """

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        added = list(tokenizer.get_added_tokens_decoder().items())
        names = {token.content for _, token in added}
        control = [(i, token) for i, token in added if token.special or not _is_text(token.content, names)]
        if not control:
            raise CheckpointError("tokenizer.json has no control tokens, so no chat can be written.", RESTORE)
        for _, token in control:
            if token.lstrip or token.rstrip or token.single_word or len(token.content) < 2:
                raise CheckpointError(
                    f"tokenizer.json: the control token {token.content!r} is of an unknown kind.", RESTORE
                )
        if tokenizer.decoder is None:
            raise CheckpointError("tokenizer.json has no decoder.", RESTORE)
        # Most control tokens of the published tokenizer are not marked special. Marked so, all of them can be
        # switched off at once.
        tokenizer.add_special_tokens([tokenizers.AddedToken(t.content, special=True) for _, t in control])
        tokenizer.encode_special_tokens = True
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._inner = tokenizer
        self._control = {token.content: i for i, token in control}
        self._control_ids = frozenset(self._control.values())
        # What stands for a character outside the vocabulary may come from text.
        unknown = self._control.get(getattr(tokenizer.model, "unk_token", None) or "")
        self._forbidden = self._control_ids - {unknown}
        self._lengths = sorted({len(name) for name in self._control}, reverse=True)
        first = "".join(re.escape(c) for c in sorted({name[0] for name in self._control}))
        self._starts = re.compile(f"[{first}]")
        self._pieces: dict[int, str] = {}

    @classmethod
    def from_file(cls, path: Path) -> Tokenizer:
        """Read a tokenizer.json. CheckpointError if it is missing or no tokenizer."""
        if not path.is_file():
            raise CheckpointError(f"{path.parent} has no {path.name}.", RESTORE)
        try:
            inner = tokenizers.Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises bare Exception for whatever is wrong
            raise CheckpointError(f"{path} is no tokenizer: {error}", RESTORE) from error
        return cls(inner)

    def control_id(self, name: str) -> int | None:
        """Id of the control token spelt ``name``; None where this tokenizer has none."""
        return self._control.get(name)

    def next_control(self, text: str, start: int = 0) -> tuple[int, int] | None:
        """Begin and end of the first place at or after ``start`` that spells a control token (the longest)."""
        for match in self._starts.finditer(text, start):
            begin = match.start()
            for length in self._lengths:
                if text[begin : begin + length] in self._control:
                    return begin, begin + length
        return None

    def split(self, text: str) -> Iterator[str | int]:
        """``text`` cut at what spells control tokens: their ids, and the stretches of text between them."""
        position = 0
        while place := self.next_control(text, position):
            begin, end = place
            if begin > position:
                yield text[position:begin]
            yield self._control[text[begin:end]]
            position = end
        if position < len(text):
            yield text[position:]

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, nothing added at either end. What spells a control token is encoded as text.

        CheckpointError if the tokenizer's merges make a control token out of text all the same.
        """
        ids: list[int] = self._inner.encode(text, add_special_tokens=False).ids
        made = self._forbidden.intersection(ids)
        if made:
            name = self._inner.id_to_token(min(made))
            raise CheckpointError(f"tokenizer.json turns plain text into the control token {name!r}.", RESTORE)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids, control tokens and unknown ids left out. Bytes that are no UTF-8 come as U+FFFD."""
        kept = [i for i in ids if i not in self._control_ids]
        return str(self._inner.decode(kept))

    def pieces(self, ids: Sequence[int]) -> list[str]:
        """For each id what it adds to the text, so that the pieces joined are ``decode(ids)``.

        Control tokens add "". Where several tokens make one character, the last of them carries it.
        """
        pieces = [""] * len(ids)
        run: list[int] = []  # places in ids of tokens that only make text together
        for place, i in enumerate(ids):
            if i in self._control_ids or self._inner.id_to_token(i) is None:
                continue
            whole = self._whole(i)
            if whole is None:
                run.append(place)
                continue
            self._fill(pieces, ids, run)
            run = []
            pieces[place] = whole
        self._fill(pieces, ids, run)
        return pieces

    def _whole(self, i: int) -> str | None:
        """The text of a token that stands for whole characters; None if its neighbours have a say in it."""
        if i not in self._pieces:
            part = _BYTE.fullmatch(self._inner.id_to_token(i) or "")
            self._pieces[i] = "\ufffd" if part else self._inner.decode([i])
        piece = self._pieces[i]
        return None if "\ufffd" in piece else piece

    def _fill(self, pieces: list[str], ids: Sequence[int], run: list[int]) -> None:
        """Give the text of a run to its tokens: each gets what is certain once it is there."""
        tokens = [ids[place] for place in run]
        text = self.decode(tokens)
        told = 0
        for count, place in enumerate(run, 1):
            sure = _common(self.decode(tokens[:count]), text)
            pieces[place] = text[told:sure]
            told = max(told, sure)


def _is_text(content: str, names: set[str]) -> bool:
    """Whether an added token that is not marked special stands for text that people and models write.

    Layout (whitespace, also as the metaspace) does, and so does markup that comes as a pair of opening and
    closing tag (``<td>``, ``</td>``). Whatever else is not marked special is a placeholder.
    """
    if not content.replace("▁", " ").strip():
        return True
    tag = re.fullmatch(r"</?([^<>/]+)>", content)
    return tag is not None and {f"<{tag[1]}>", f"</{tag[1]}>"} <= names


def _common(a: str, b: str) -> int:
    """Length of the longest common beginning."""
    for n, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return n
    return min(len(a), len(b))
