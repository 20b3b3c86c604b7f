"""The caches of recent conversations, for whichever request goes on with one of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count

from dgemma_cli.engine.events import Event
from dgemma_cli.engine.options import Options
from dgemma_cli.engine.session import Session
from dgemma_cli.engine.sharing import Sharing
from dgemma_cli.model.model import Model


class Shelf:
    """Sessions at rest; the least recently used are let go where they take more than ``budget`` bytes together.

    A session in use is not on the shelf, so two replies never share a cache. Those whose options have no seed share
    their passes, up to ``parallel`` canvases in one, where the model can do that. Not for several threads at once.

    reserved: bytes set aside for the cache of each of ``parallel`` replies. What the replies at work leave of that
    serves sessions at rest.
    """

    def __init__(self, model: Model, budget: int, parallel: int = 1, reserved: int = 0) -> None:
        self._model = model
        self._budget = budget
        self._parallel = parallel
        self._reserved = reserved
        self._at_work = 0
        sharing = Sharing(model, parallel)
        self._sharing = sharing if sharing.possible else None
        self._sessions: dict[str | int, Session] = {}  # the most recently used last
        self._numbers = count()

    @property
    def nbytes(self) -> int:
        """Bytes of the caches at rest. May be read by another thread."""
        return sum(session.nbytes for session in list(self._sessions.values()))

    def __len__(self) -> int:
        return len(self._sessions)

    def reply(
        self,
        ids: Sequence[int],
        options: Options,
        conversation: str | None = None,
    ) -> Iterator[Event]:
        """The events of one reply to ``ids``.

        conversation: a name for the cache. Only the cache of that name is used, as a ``Session`` of one's own would be.
        Without a name it is the cache with the longest common beginning; but where the options have a seed only what
        leaves no trace is used (``Session.usable``), so that the text does not hang on what others asked before.
        """
        exact = conversation is None and options.seed is not None
        session = self._best(ids, exact) if conversation is None else self._sessions.pop(conversation, None)
        session = session or Session(self._model)
        sharing = self._sharing if options.seed is None else None
        self._at_work += 1
        try:
            self._tidy()  # before a cache is made
            yield from session.reply(ids, options, exact, sharing.denoise if sharing else None)
        finally:
            self._at_work -= 1
            self._sessions[next(self._numbers) if conversation is None else conversation] = session
            self._tidy()

    def forget(self) -> None:
        """Let all caches at rest go."""
        self._sessions.clear()

    def _best(self, ids: Sequence[int], exact: bool) -> Session | None:
        """The session of which most can be used: itself if it is used whole and has no name, else a copy."""
        found = {key: session.usable(ids, exact) for key, session in self._sessions.items()}
        key = max(found, key=found.__getitem__, default=None)
        if key is None or not found[key]:
            return None
        session = self._sessions.pop(key)
        if isinstance(key, int) and found[key] == len(session.encoded):
            return session
        self._sessions[key] = session  # used just now
        return session.fork()

    def _tidy(self) -> None:
        """Let go of what there is no room for."""
        while self._sessions and self.nbytes > self._room:
            self._sessions.pop(next(iter(self._sessions)))

    @property
    def _room(self) -> int:
        idle = self._reserved * (self._parallel - self._at_work)
        return self._budget + max(0, idle - self._model.spare_nbytes)
