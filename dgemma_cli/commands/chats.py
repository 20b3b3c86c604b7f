"""``dgemma chats``: the conversations that are kept."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dgemma_cli.commands.asking import agreed
from dgemma_cli.commands.completing import chat_ids
from dgemma_cli.commands.tree import Commands
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.untrusted import visible

if TYPE_CHECKING:
    from dgemma_cli.chat.store import Listed, Store

chats = Commands(
    help="Look after kept conversations.",
    epilog="Example: dgemma chats list; dgemma chats export ID -o talk.md",
)


class Format(StrEnum):
    """What a conversation is exported as."""

    MARKDOWN = "markdown"
    JSON = "json"
    JSONL = "jsonl"


_Id = Annotated[
    str,
    typer.Argument(metavar="ID", autocompletion=chat_ids, help="Its id, or how that begins.", show_default=False),
]


@chats.command("list")
def list_chats(json_output: Annotated[bool, typer.Option("--json", help="Print a JSON array.")] = False) -> None:
    """List the conversations, the latest first."""
    environment = Environment.current()
    found = _store(environment).all()
    if json_output:
        environment.write(json.dumps([_describe(entry) for entry in found], indent=2) + "\n")
        return
    if not found:
        environment.say("No conversation is kept. Begin one: dgemma chat", dim=True)
        return
    rows = [("ID", "CHANGED", "TURNS", "MODEL", "BEGINS")]
    for entry in found:
        changed = entry.changed.astimezone().strftime("%Y-%m-%d %H:%M")
        model = entry.header.model if entry.header else "?"
        rows.append((entry.id, changed, str(len(entry.dialogue.turns)), model, title(entry)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, [*widths, 0], strict=True)]
        environment.write("  ".join(cells).rstrip() + "\n")


@chats.command("show")
def show(name: _Id) -> None:
    """Print a conversation."""
    from dgemma_cli.chat.transcript import plain

    environment = Environment.current()
    text = plain(_find(environment, name).dialogue)
    environment.write(visible(text) if environment.stdout_is_terminal else text)


@chats.command("rm")
def remove(
    names: Annotated[
        list[str], typer.Argument(metavar="ID", autocompletion=chat_ids, help="Which ones.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
) -> None:
    """Remove conversations for good."""
    environment = Environment.current()
    store = _store(environment)
    found = [_find(environment, name) for name in names]
    if not yes:
        if not (environment.stdin_is_terminal and environment.stderr_is_terminal):
            raise UsageError("Nobody can be asked here whether to remove them.", "Say so at once: --yes")
        for entry in found:
            count = len(entry.dialogue.turns)
            environment.say(f"{entry.id}  {count} turn{'' if count == 1 else 's'}  {title(entry)}")
        if not agreed(f"Remove {len(found)} for good?", environment):
            environment.say("Nothing was removed.")
            return
    for entry in found:
        store.remove(entry.path)


@chats.command("export")
def export(
    name: _Id,
    format_: Annotated[Format, typer.Option("--format", help="markdown to read, json, or jsonl as it is kept.")] = (
        Format.MARKDOWN
    ),
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write to FILE instead of standard output.")
    ] = None,
) -> None:
    """Write a conversation out: to read, or for programs."""
    from dgemma_cli.terminal.output import Target

    environment = Environment.current()
    entry = _find(environment, name)
    target = Target(environment, output)
    try:
        target.write(_exported(entry, format_))
    finally:
        target.close()


def _exported(entry: Listed, format_: Format) -> str:
    from dgemma_cli.chat import records, transcript

    if format_ is Format.MARKDOWN:
        return transcript.markdown(entry.dialogue)
    if format_ is Format.JSON:
        messages = [{"role": message.role, "content": message.content} for message in entry.dialogue.messages()]
        return json.dumps({**_describe(entry), "messages": messages}, indent=2, ensure_ascii=False) + "\n"
    header = entry.header or records.Header(entry.id, entry.changed.isoformat(timespec="seconds"), "?")
    lines = [records.header_line(header)]
    return "".join([*lines, *map(records.record_line, records.from_dialogue(entry.dialogue, header.model))])


def _store(environment: Environment) -> Store:
    from dgemma_cli.chat.store import Store, state_folder

    return Store(state_folder(environment.variables))


def _find(environment: Environment, name: str) -> Listed:
    """The conversation of that id. What is wrong with its file is told, and the file left alone."""
    store = _store(environment)
    path = store.find(name)
    entry = next(entry for entry in store.all() if entry.path == path)
    if entry.damage is not None:
        environment.say(f"warning: {path.name}: {entry.damage}; this is what stands before it")
    return entry


def title(entry: Listed) -> str:
    """How it begins, in a few words; or what is wrong with it."""
    if entry.damage is not None:
        return f"[damaged: {entry.damage}]"
    dialogue = entry.dialogue
    text = " ".join(visible(dialogue.turns[0].user if dialogue.turns else dialogue.question or "").split())
    return text if len(text) <= 50 else text[:47] + "..."


def _describe(entry: Listed) -> dict[str, object]:
    return {
        "id": entry.id,
        "model": entry.header.model if entry.header else None,
        "created": entry.header.created if entry.header else None,
        "changed": entry.changed.isoformat(timespec="seconds"),
        "turns": len(entry.dialogue.turns),
        "damage": entry.damage,
        "path": str(entry.path),
    }
