"""A conversation to read: plain text, or markdown."""

from __future__ import annotations

from dgemma_cli.chat.dialogue import Dialogue


def plain(dialogue: Dialogue) -> str:
    """Who said what; empty if nobody said anything."""
    parts = [f"system: {dialogue.system}\n"] if dialogue.system else []
    for turn in dialogue.turns:
        parts.append(f"> {turn.user}\n\n{turn.answer}{' [cancelled]' if turn.cut else ''}\n")
    if dialogue.question is not None:
        parts.append(f"> {dialogue.question}\n\n[no answer]\n")
    return "\n".join(parts)


def markdown(dialogue: Dialogue) -> str:
    """A document with a section a turn. Thoughts are left out."""
    parts = [f"## System\n\n{dialogue.system}\n"] if dialogue.system else []
    for turn in dialogue.turns:
        parts.append(f"## You\n\n{turn.user}\n")
        parts.append(f"## Model{' (cancelled)' if turn.cut else ''}\n\n{turn.answer}\n")
    if dialogue.question is not None:
        parts.append(f"## You\n\n{dialogue.question}\n")
    return "\n".join(parts)
