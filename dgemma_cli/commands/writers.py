"""Who writes for a command: a server somewhere, a server on this machine that has the model warm, or this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dgemma_cli.catalog.resolve import resolve
from dgemma_cli.commands import loading
from dgemma_cli.engine.options import CONTEXT, Options
from dgemma_cli.errors import DgemmaError
from dgemma_cli.fit import Fit, written
from dgemma_cli.memory import Work
from dgemma_cli.prompting.conversation import Message
from dgemma_cli.server import places
from dgemma_cli.server.background import start
from dgemma_cli.server.identity import Wanted
from dgemma_cli.terminal.entries import Entry
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.writing import Conversation, InProcess, Writer

if TYPE_CHECKING:
    from dgemma_cli.commands.before_loading import Length
    from dgemma_cli.model.config import ModelConfig
    from dgemma_cli.prompting.prompter import Prompter

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Choice:
    """Which model, and where it may write. warm: a server on this machine may; keep: one is to be left behind, idle for
    so long ("10m") at the most; work, context: what there must be memory for, where it is loaded here.
    """

    model: str
    device: str
    dtype: str
    fit: Fit
    warm: bool
    keep: str | None
    work: Work
    context: int | Callable[[Prompter, ModelConfig], Length] = CONTEXT


def find(
    choice: Choice,
    environment: Environment,
    progress: Progress | None,
    warn: Callable[[str], None],
    explain: Callable[[str], None],
) -> Writer:
    """The writer. progress: bytes loaded and in all, where something is loaded. warn: takes what the user should know;
    explain: why servers that are there are not used.

    Raises DgemmaError.
    """

    def load() -> Writer:
        session = loading.load_session(
            choice.model,
            choice.device,
            choice.dtype,
            progress,
            choice.fit,
            warn,
            choice.work,
            ("--best-of",),
            choice.context,
        )
        return InProcess(session)

    if not choice.warm:
        return load()
    folder = places.runtime_folder(environment.variables)
    if not choice.keep and not places.sockets(folder):
        return load()  # without the cost of looking for a server

    from dgemma_cli.server.finding import ask, matching

    wanted = Wanted(resolve(choice.model).folder, choice.device, choice.dtype, choice.fit)
    found, reasons = matching(wanted, environment.variables)
    if found is None and choice.keep:
        with places.lock(places.own_folder(folder) / "start.lock"):
            found, _ = matching(wanted, environment.variables)  # one that another command has just started
            if found is None:
                socket = _start(choice, folder, progress)
                found = ask(socket)
                if found is None:
                    raise DgemmaError("The server that was just started does not answer.", "dgemma ps")
    if found is None:
        writer = load()
        for reason in reasons:
            explain(reason)
        return writer
    if found.identity.fitted != "as stored":
        warn(f"the server's model was made to fit: {found.identity.fitted}")
    return _Warm(found.served(), load, warn)


def _start(choice: Choice, folder: Path, progress: Progress | None) -> Path:
    arguments = ["--model", choice.model, "--device", choice.device, "--dtype", choice.dtype]
    arguments += ["--fit", written(choice.fit), "--keep", str(choice.keep)]
    return start(arguments, folder / "server.log", progress)


def at(url: str, model: str | None, environment: Environment) -> Writer:
    """The model of that name at an endpoint. Raises DgemmaError."""
    from dgemma_cli.server.endpoint import connect

    return connect(url, environment.variables.get("DGEMMA_API_KEY") or None, model)


class _Warm:
    """A server's model; this process's own once the server is gone. What it has begun to answer it must finish."""

    tells_steps = True

    def __init__(self, served: Writer, load: Callable[[], Writer], warn: Callable[[str], None]) -> None:
        self._now = served
        self._served = served
        self._load = load
        self._warn = warn

    @property
    def name(self) -> str:
        return self._now.name

    @property
    def device(self) -> str:
        return self._now.device

    @property
    def dtype(self) -> str:
        return self._now.dtype

    @property
    def fit(self) -> str:
        return self._now.fit

    @property
    def room(self) -> int:
        return self._now.room

    @property
    def place(self) -> str:
        return self._now.place

    def described(self, options: Options) -> list[str]:
        return self._now.described(options)

    def check_memory(self, options: Options) -> None:
        self._now.check_memory(options)

    def count(self, messages: Sequence[Message], thinking: bool) -> int:
        from dgemma_cli.server.wire import Gone

        try:
            return self._now.count(messages, thinking)
        except Gone as gone:
            return self._own(gone).count(messages, thinking)

    def write(self, messages: Sequence[Message], thinking: bool, options: Options, pause: float) -> Iterator[Entry]:
        return self._entries(lambda writer: writer.write(messages, thinking, options, pause))

    def converse(self) -> Conversation:
        return _Conversation(self)

    def _entries(self, begin: Callable[[Writer], Iterator[Entry]]) -> Iterator[Entry]:
        from dgemma_cli.server.wire import Gone

        begun = False
        try:
            for entry in begin(self._now):
                begun = True
                yield entry
        except Gone as gone:
            if begun:
                raise
            yield from begin(self._own(gone))

    def _own(self, gone: DgemmaError) -> Writer:
        if self._now is not self._served:
            raise gone
        self._warn(f"{gone.message} The model is loaded here instead.")
        self._now = self._load()
        return self._now


class _Conversation:
    """Goes on in this process once the server is gone."""

    def __init__(self, warm: _Warm) -> None:
        self._warm = warm
        self._writer = warm._now
        self._inner = self._writer.converse()

    def reply(self, messages: Sequence[Message], thinking: bool, options: Options) -> Iterator[Entry]:
        return self._warm._entries(lambda writer: self._with(writer).reply(messages, thinking, options))

    def forget(self) -> None:
        self._inner.forget()

    def _with(self, writer: Writer) -> Conversation:
        if writer is not self._writer:
            self._writer, self._inner = writer, writer.converse()
        return self._inner
