"""The slash commands, a function each: what it does to the chat, and what it says."""

from __future__ import annotations

from pathlib import Path

from dgemma_cli.chat import store
from dgemma_cli.chat.chat import Attachment, Chat, Draft
from dgemma_cli.chat.clipboard import copy_text
from dgemma_cli.chat.dialogue import Dialogue
from dgemma_cli.chat.transcript import plain
from dgemma_cli.errors import DgemmaError, UsageError
from dgemma_cli.terminal.untrusted import visible


def refuse_argument(name: str, rest: str) -> None:
    if rest:
        raise UsageError(f"/{name} takes nothing after it.")


def system(chat: Chat, rest: str) -> None:
    if not rest:
        chat.note(visible(chat.dialogue.system) if chat.dialogue.system else "There is no system prompt.")
        return
    chat.set_system(None if rest == "-" else rest)
    chat.note("system prompt removed" if rest == "-" else "system prompt set")


def set_(chat: Chat, rest: str) -> None:
    if not rest:
        _print_settings(chat)
        return
    name, _, word = rest.replace("=", " ", 1).partition(" ")
    if not word.strip():
        raise UsageError(f"/set {name} needs a value.", "Like this: /set seed 7, or: /set seed default")
    changed = chat.settings.changed(name.lower(), word.strip())
    if chat.loaded is not None and changed.options != chat.settings.options:
        chat.loaded.check_memory(changed.options)
    chat.settings = changed
    chat.note(f"{name.lower()} is {word.strip()}")


def show(chat: Chat, rest: str) -> None:
    refuse_argument("show", rest)
    used, room = chat.tokens(), chat.model.room
    model(chat, "")
    chat.note(f"context        {used:,} of {room:,} tokens ({used / room:.0%}), {_turns(chat)}")
    kept = "not kept" if chat.store is None else chat.journal.id if chat.journal else "kept from the first question on"
    chat.note(f"conversation   {kept}")
    if chat.dialogue.system:
        chat.note(f"system         {visible(chat.dialogue.system)}")
    _print_settings(chat)


def _print_settings(chat: Chat) -> None:
    for name, value in chat.settings.lines():
        chat.note(f"{name:<14} {value}")


def model(chat: Chat, rest: str) -> None:
    if not rest:
        chat.note(f"model          {_named(chat)}")
        return
    before = chat.loaded
    chat.loaded = chat.conversation = None  # first, so that there are never two in memory
    name = before.name if before is not None else None
    before = None
    try:
        chat.loaded = chat.load(rest)
    except BaseException as error:
        if name is not None:
            chat.loaded = chat.load(name)
        if isinstance(error, DgemmaError) and name is not None:
            raise type(error)(error.message, f"{name} goes on.\n{error.hint}".strip()) from None
        raise
    chat.note(f"{_named(chat)}")


def _turns(chat: Chat) -> str:
    count = len(chat.dialogue.turns)
    return f"{count} turn" + ("" if count == 1 else "s")


def _named(chat: Chat) -> str:
    return f"{chat.model.name} on {chat.model.device} ({chat.model.dtype})"


def undo(chat: Chat, rest: str) -> None:
    refuse_argument("undo", rest)
    text = " ".join(visible(chat.undo()).split())
    chat.note(f"taken back: {text[:60]}{'...' if len(text) > 60 else ''}")


def regen(chat: Chat, rest: str) -> None:
    words = rest.split()
    if not words:
        chat.regenerate(None)
    elif len(words) == 2 and words[0] == "--seed" and words[1].isdecimal():
        chat.regenerate(int(words[1]))
    else:
        raise UsageError("That is not how /regen goes.", "Like this: /regen, or: /regen --seed 7")


def edit(chat: Chat, rest: str) -> None:
    refuse_argument("edit", rest)
    if chat.dialogue.last is None:
        raise UsageError("There is no question yet.")
    chat.draft = Draft(chat.dialogue.last, replaces=True)


def editor(chat: Chat, rest: str) -> None:
    refuse_argument("editor", rest)
    chat.draft = Draft(editor=True)


def clear(chat: Chat, rest: str) -> None:
    """The conversation so far stays kept as it is; what follows is another one."""
    refuse_argument("clear", rest)
    chat.attachments.clear()
    chat.replace(Dialogue(chat.dialogue.system))
    chat.note("a new conversation")


def compact(chat: Chat, rest: str) -> None:
    dialogue = chat.dialogue
    if not dialogue.turns:
        raise UsageError("There are no turns to drop.")
    if rest and not rest.isdecimal():
        raise UsageError(f"/compact takes a number of turns, not {rest!r}.")
    before = chat.tokens()
    count = int(rest) if rest else _turns_beyond_half(chat)
    chat.change({"record": "drop", "turns": count}, lambda: dialogue.drop(count))
    chat.note(f"dropped {count} of {count + len(dialogue.turns)} turns: {before:,} -> {chat.tokens():,} tokens")


def _turns_beyond_half(chat: Chat) -> int:
    """How many of the oldest turns must go until half of the context is free; one at the least."""
    dialogue = chat.dialogue
    for count in range(1, len(dialogue.turns)):
        rest = Dialogue(dialogue.system, dialogue.turns[count:], dialogue.question)
        if chat.model.count(rest.messages(), chat.settings.thinking) <= chat.model.room // 2:
            return count
    return len(dialogue.turns)


def save(chat: Chat, rest: str) -> None:
    replace = rest.startswith("-f ")
    path = _path("save", rest.removeprefix("-f "))
    store.write_copy(path, chat.model.name, chat.dialogue, replace)
    chat.note(f"{_turns(chat)} written to {path}")


def load(chat: Chat, rest: str) -> None:
    story = store.read_copy(_path("load", rest))
    chat.replace(story.dialogue)
    chat.note(f"{_turns(chat)}; the conversation before it stays kept as it was")


def file(chat: Chat, rest: str) -> None:
    path = _path("file", rest)
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no UTF-8 text.") from None
    chat.attachments.append(Attachment(path.name, text))
    count = len(text.splitlines())
    size = f"{len(data):,} bytes, {count:,} line{'' if count == 1 else 's'}"
    chat.note(f"{path.name}: {size}, goes with the next question")


def copy(chat: Chat, rest: str) -> None:
    refuse_argument("copy", rest)
    if not chat.dialogue.turns:
        raise UsageError("There is no answer yet.")
    chat.note(copy_text(chat.dialogue.turns[-1].answer, chat.environment))


def stats(chat: Chat, rest: str) -> None:
    refuse_argument("stats", rest)
    if chat.outcome is None or not chat.outcome.figures():
        raise UsageError("There is no finished answer yet.")
    chat.note(chat.outcome.figures())


def record(chat: Chat, rest: str) -> None:
    if not chat.model.tells_steps:
        raise UsageError(f"{chat.model.place} tells no steps, so there is nothing to record.")
    path = _path("record", rest)
    if not path.parent.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {path.parent}.")
    chat.record = path
    chat.note(f"the next answer is recorded in {chat.record}")


def history(chat: Chat, rest: str) -> None:
    refuse_argument("history", rest)
    chat.environment.write(visible(plain(chat.dialogue)))


def exit_(chat: Chat, rest: str) -> None:
    refuse_argument("exit", rest)
    chat.leaving = True


def _path(name: str, rest: str) -> Path:
    if not rest.strip():
        raise UsageError(f"/{name} needs a file.")
    return Path(rest.strip()).expanduser()
