"""What a line typed into a chat is: a question, or a command with its argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from dgemma_cli.chat import actions
from dgemma_cli.chat.chat import Chat
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.near import near


@dataclass(frozen=True, slots=True)
class Command:
    """usage: its arguments, as help shows them. run: takes the rest of the line."""

    usage: str
    help: str
    run: Callable[[Chat, str], None]


COMMANDS = {
    "help": Command("", "this list", lambda chat, rest: _help(chat, rest)),
    "system": Command("[TEXT | -]", "show, set or (-) remove the system prompt", actions.system),
    "set": Command("[NAME VALUE]", "change a setting of the sampler, think, markdown, ...", actions.set_),
    "show": Command("", "the model, the settings, the context", actions.show),
    "model": Command("[NAME]", "show or change the model; the conversation goes on", actions.model),
    "undo": Command("", "take back the last turn", actions.undo),
    "regen": Command("[--seed N]", "answer the last question again", actions.regen),
    "edit": Command("", "change the last question and ask again", actions.edit),
    "editor": Command("", "write the next question in $EDITOR (or Ctrl-G)", actions.editor),
    "clear": Command("", "forget the conversation, keep the system prompt", actions.clear),
    "compact": Command("[TURNS]", "drop the oldest turns, keep the system prompt", actions.compact),
    "save": Command("[-f] FILE", "write the conversation to FILE", actions.save),
    "load": Command("FILE", "go on with the conversation of FILE", actions.load),
    "file": Command("PATH", "add a file's text to the next question", actions.file),
    "copy": Command("", "copy the last answer", actions.copy),
    "stats": Command("", "figures of the last answer", actions.stats),
    "record": Command("FILE", "keep every step of the next answer in FILE", actions.record),
    "history": Command("", "the conversation so far", actions.history),
    "exit": Command("", "leave (or Ctrl-D)", actions.exit_),
}
ALIASES = {"?": "help", "quit": "exit", "bye": "exit", "q": "exit", "retry": "regen", "reset": "clear"}


def obey(chat: Chat, line: str) -> None:
    """Do what a line says: ``/command argument``, or a question; ``//`` begins a question with one slash.

    Raises DgemmaError; then nothing has changed but what was asked for already.
    """
    if line.startswith("//"):
        chat.ask(line[1:])
    elif not line.startswith("/"):
        chat.ask(line)
    else:
        word, rest = (*line[1:].split(maxsplit=1), "", "")[:2]
        name = word.lower()
        command = COMMANDS.get(ALIASES.get(name, name))
        if command is None:
            raise UsageError(
                f"There is no command /{word}.",
                near(word, list(COMMANDS), "/") + f"\nTo send it as a question: /{line}",
            )
        command.run(chat, rest)


def _help(chat: Chat, rest: str) -> None:
    actions.refuse_argument("help", rest)
    width = max(len(f"/{name} {command.usage}") for name, command in COMMANDS.items())
    lines = [f"/{name} {command.usage}".ljust(width + 2) + command.help for name, command in COMMANDS.items()]
    lines += [
        "",
        'Enter sends; Alt-Enter or Ctrl-J begins a new line, as does Enter between two """.',
        "// at the beginning sends a text that begins with a slash.",
        "Ctrl-C cancels an answer or a line; Ctrl-D leaves.",
    ]
    chat.environment.write("\n".join(lines) + "\n")
