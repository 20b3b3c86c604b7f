"""An answer rendered as markdown on a terminal."""

from __future__ import annotations

import io
import os

from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.untrusted import visible


def print_markdown(environment: Environment, color: bool, text: str) -> None:
    """Write ``text``, markdown of a model, to the terminal that standard output is."""
    environment.write(rendered(environment, color, text))


def rendered(environment: Environment, color: bool, text: str) -> str:
    """``text``, markdown of a model, as lines for the terminal that standard output is."""
    from rich.console import Console
    from rich.markdown import Markdown

    try:
        width = os.get_terminal_size(environment.stdout.fileno()).columns or 80
    except OSError:
        width = 80
    screen = io.StringIO()
    console = Console(
        file=screen, force_terminal=True, color_system="standard", no_color=not color, width=width, legacy_windows=False
    )
    # Links as plain text: the address of a terminal link is not seen by who clicks it.
    document = Markdown(visible(text), hyperlinks=False)
    for token in document.parsed:
        for part in token.children or ():
            if part.type == "softbreak":  # a model that ends a line means to: verses, addresses
                part.type = "hardbreak"
    console.print(document)
    return screen.getvalue()
