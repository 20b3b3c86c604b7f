"""A chat from its start to its end: the conversation taken up, the model loaded, the loop, the farewell."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from prompt_toolkit.history import History

from dgemma_cli.catalog.names import completions
from dgemma_cli.chat.chat import Chat
from dgemma_cli.chat.completion import complete
from dgemma_cli.chat.dialogue import Dialogue
from dgemma_cli.chat.repl import repeat
from dgemma_cli.chat.settings import Settings
from dgemma_cli.chat.store import Store, read_copy, state_folder
from dgemma_cli.chat.transcript import plain
from dgemma_cli.commands.before_loading import work_of
from dgemma_cli.commands.default_model import default_model
from dgemma_cli.commands.fetch_missing import fetch_missing
from dgemma_cli.commands.where import Where
from dgemma_cli.commands.writers import Choice, Progress, at, find
from dgemma_cli.fit import Fit
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.line_editor import LineEditor, file_history, no_history
from dgemma_cli.terminal.live import LiveView
from dgemma_cli.terminal.painter import Painter
from dgemma_cli.terminal.palette import Palette
from dgemma_cli.terminal.typed_ahead import typed_ahead
from dgemma_cli.terminal.untrusted import visible
from dgemma_cli.writing import HERE, Writer


@dataclass(frozen=True, slots=True)
class Opening:
    """What a chat begins with. model: None is that of the conversation taken up, or the embedded one. resume: id of a
    kept conversation, "" the last one; fetch: fetch a model that is not here, without a question; keep: write the
    conversation down.
    """

    model: str | None
    device: str
    dtype: str
    where: Where
    fit: Fit
    system: str | None
    settings: Settings
    live: bool
    color: bool
    resume: str | None
    fetch: bool
    keep: bool


def start(opening: Opening, environment: Environment) -> None:
    """Load the model and chat until the user leaves. Raises DgemmaError."""
    state = state_folder(environment.variables)
    going: Chat = Chat(
        loaded=None,
        load=partial(_load, opening, environment, lambda: going.settings),
        settings=opening.settings,
        environment=environment,
        live=opening.live,
        color=opening.color,
        store=Store(state) if opening.keep else None,
    )
    try:
        name = opening.model
        if opening.resume is not None:
            before = _resume(going, opening.resume, opening.keep, Store(state))
            name = name or before
        if opening.system is not None and opening.system != going.dialogue.system:
            going.set_system(opening.system)
        if opening.where.endpoint is None:
            name = name or default_model(environment, quiet=False)
            fetch_missing(name, environment, opening.fetch, quiet=False)
            going.loaded = going.load(name)
        else:  # which has names of its own
            going.loaded = at(opening.where.endpoint, opening.model, environment)
        _greet(going)
        reader = LineEditor(
            _history(environment, state, going.note), lambda before: complete(before, completions), opening.color
        )
        repeat(going, reader, environment.variables.get("DGEMMA_DEBUG", "0") not in ("", "0"))
        if going.journal is not None:
            going.note(f"kept: dgemma chat --resume {going.journal.id}")
    finally:
        going.close()


def _resume(going: Chat, name: str, keep: bool, store: Store) -> str:
    """Take up a kept conversation. Returns the name of the model it was had with."""
    name = name or store.latest()
    if keep:
        journal, story, remark = store.resume(name)
        going.journal = journal
        if remark is not None:
            going.note(f"warning: {remark}")
    else:
        story = read_copy(store.find(name))
    going.dialogue = story.dialogue
    return story.header.model


def _greet(going: Chat) -> None:
    model = going.model
    place = "" if model.place == HERE else f", in {model.place}"
    going.note(f"{model.name} on {model.device} ({model.dtype}){place}. /help lists the commands.")
    dialogue = going.dialogue
    if dialogue.turns:
        count = len(dialogue.turns)
        going.note(f"{count} turns so far; the last one:" if count > 1 else "One turn so far:")
        going.environment.write(visible(plain(Dialogue(None, dialogue.turns[-1:]))))
    if dialogue.question is not None:
        going.note("The last question has no answer yet: /regen asks it again.")


def _load(opening: Opening, environment: Environment, settings: Callable[[], Settings], name: str) -> Writer:
    """Load a model, with memory for what is set now, telling how far that is."""
    if opening.where.endpoint is not None:
        return at(opening.where.endpoint, name, environment)
    where, work = opening.where, work_of(settings().options, goes_on=True)
    choice = Choice(name, opening.device, opening.dtype, opening.fit, where.warm, where.keep, work)

    def find_with(progress: Progress | None) -> Writer:
        return find(choice, environment, progress, warn, lambda _: None)

    def warn(line: str) -> None:
        say = partial(environment.say, line, dim=True)
        if view is not None:
            view.print_above(say)
        else:
            say()

    view: LiveView | None = None
    with typed_ahead(environment.stdin.fileno()) if environment.stdin_is_terminal else nullcontext():
        if not opening.live:
            return find_with(None)
        painter = Painter.on_terminal(environment.stderr.fileno(), environment.encode_for_terminal)
        loading = view = LiveView(painter, Palette(opening.color, environment.unicode))
        loading.start(f"loading {name}")
        try:
            return find_with(lambda done, total: loading.tell(f"loading {name} {done / max(1, total):.0%}"))
        finally:
            view = None
            loading.close()


def _history(environment: Environment, state: Path, tell: Callable[[str], None]) -> History:
    """The lines typed in earlier chats; only this chat's with DGEMMA_NO_HISTORY, or where they cannot be kept."""
    if environment.variables.get("DGEMMA_NO_HISTORY"):
        return no_history()
    try:
        return file_history(state / "history")
    except OSError as error:
        tell(f"warning: {state / 'history'} cannot be written ({error.strerror}); lines are not remembered")
        return no_history()
