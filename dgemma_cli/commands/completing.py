"""What TAB offers where names alone do not tell. Called by the shell at each TAB: no torch, no network."""

from __future__ import annotations

import os
from collections.abc import Callable


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Those of ``values`` that begin as typed."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def chat_ids(incomplete: str) -> list[tuple[str, str]]:
    """Ids of kept conversations, the latest first, with how they begin."""
    from dgemma_cli.chat.store import Store, state_folder
    from dgemma_cli.commands.chats import title

    kept = Store(state_folder(os.environ)).all()
    return [(entry.id, title(entry)) for entry in kept if entry.id.startswith(incomplete)]
