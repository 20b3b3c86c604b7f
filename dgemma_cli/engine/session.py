"""A conversation's cache, kept from turn to turn: each turn encodes only what is new."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from dgemma_cli.engine.denoise import Denoiser
from dgemma_cli.engine.events import BlockCommitted, Event
from dgemma_cli.engine.generate import generate
from dgemma_cli.engine.options import Options
from dgemma_cli.model import cache as kv
from dgemma_cli.model.model import Model


class Session:
    """Replies to one conversation's prompts, each of them given whole.

    What a prompt has in common with the text in the cache is not encoded again; the rest of the cache is cut off.
    So a turn taken back, another system prompt or a cancelled reply need nothing of their own.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self._cache: kv.KVCache | None = None
        self._text: list[int] = []  # its beginning is in the cache, as far as that is long
        self._exact = 0  # tokens at the beginning that were encoded in the chunks in which a fresh cache takes them

    @property
    def encoded(self) -> list[int]:
        """The ids in the cache."""
        return self._text[: self._cache.length] if self._cache else []

    @property
    def nbytes(self) -> int:
        """Bytes of the cache."""
        return self._cache.nbytes if self._cache else 0

    def usable(self, ids: Sequence[int], exact: bool = False) -> int:
        """How many of the first tokens of ``ids`` a reply would not encode again.

        exact: only as many as leave no trace. Numbers are rounded otherwise where a text is encoded in other pieces;
        with ``exact`` the reply is bit for bit that of a fresh cache.
        """
        # The last token is always encoded, so that there is something to encode.
        keep = min(_common(self.encoded, ids), max(0, len(ids) - 1))
        if exact:
            keep = min(keep, self._exact) // self._model.chunk * self._model.chunk
        return keep if self._cache and self._cache.can_cut(keep) else 0

    def reply(
        self, ids: Sequence[int], options: Options, exact: bool = False, denoiser: Denoiser | None = None
    ) -> Iterator[Event]:
        """The events of one reply to the prompt ``ids``; ``PromptEncoded.cached`` tells how much of it was kept.

        The iterator may be left at any event, and an exception may end it anywhere. exact: see ``usable``. Raises what
        ``generate`` does.
        """
        keep = self.usable(ids, exact)
        if keep and self._cache:
            self._cache.cut(keep)
        else:
            self.forget()  # first, so that there are never two
            self._cache = self._model.new_cache(kv.SLACK)
        chunk = self._model.chunk
        whole = len(ids) if keep <= self._exact and keep % chunk == 0 else min(keep, self._exact)
        self._exact = whole // chunk * chunk
        self._text = list(ids)
        for event in generate(self._model, ids, options, self._cache, denoiser=denoiser):
            if isinstance(event, BlockCommitted):
                # What is encoded of a reply is whole blocks, committed before: the text is never behind the cache.
                self._text.extend(event.ids)
            yield event

    def fork(self) -> Session:
        """Another conversation that begins with the same text, with a cache of its own."""
        twin = Session(self._model)
        twin._text, twin._exact = self.encoded, self._exact
        twin._cache = self._cache.copy() if self._cache else None
        return twin

    def forget(self) -> None:
        """Let the cache go. The next reply encodes its prompt from the start."""
        self._cache = None
        self._text = []
        self._exact = 0


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common beginning."""
    return next((n for n, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
