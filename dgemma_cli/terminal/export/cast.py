"""A film as an asciicast of version 2, for asciinema and its players."""

from __future__ import annotations

import json

from dgemma_cli.terminal.export.stage import LAST_SECONDS, Stage
from dgemma_cli.terminal.film import Film
from dgemma_cli.terminal.painter import Painter
from dgemma_cli.terminal.untrusted import visible


def to_cast(film: Film, stage: Stage) -> str:
    """JSON lines: a header, then what a terminal received and when."""
    header = {
        "version": 2,
        "width": stage.columns,
        "height": stage.rows,
        "title": film.start.prompt,
        "env": {"TERM": "xterm-256color"},
    }
    lines: list[object] = [header]
    now = 0.0

    def write(text: str) -> None:
        lines.append([round(now, 4), "o", text])

    painter = Painter(write, lambda: (stage.columns, stage.rows))
    write(stage.prompt(film) + "\r\n")
    for shot in film.shots:
        painter.paint(stage.lines(shot))
        now += shot.seconds
    painter.erase()
    write(visible(film.text).replace("\n", "\r\n") + "\r\n")
    now += LAST_SECONDS
    write("")
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
