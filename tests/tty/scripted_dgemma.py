"""``dgemma`` with a scripted model, as a process of its own: for tests over a real terminal.

Takes dgemma's arguments. The environment says what the model writes: SCRIPT_TEXT (JSON string), SCRIPT_THINKING,
SCRIPT_CANVAS, SCRIPT_STEPS, SCRIPT_STEP_MS, SCRIPT_LOAD_MS; SCRIPT_BREAK_VIEW makes drawing fail, SCRIPT_STUCK a
step that swallows interrupts.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "terminal"))

import contextlib

from scripted import ScriptedSession, script, slowly, spell

from dgemma_cli.__main__ import main
from dgemma_cli.commands import loading
from dgemma_cli.engine.events import Denoised, Event
from dgemma_cli.terminal import live


def _setting(name: str, default: str) -> str:
    return os.environ.get(f"SCRIPT_{name}", default)


def _load(name: str, device: str, dtype: str, progress: Any, *_: Any) -> ScriptedSession:
    time.sleep(int(_setting("LOAD_MS", "0")) / 1000)
    text = json.loads(_setting("TEXT", '"Hello, world."'))
    ids = spell(text, _setting("THINKING", ""))
    canvas, steps = int(_setting("CANVAS", "16")), int(_setting("STEPS", "4"))
    pause = int(_setting("STEP_MS", "0")) / 1000
    hold = _stuck if _setting("STUCK", "") else iter
    return ScriptedSession(lambda: hold(slowly(script(ids, canvas, steps), pause)))


def _stuck(events: Iterator[Event]) -> Iterator[Event]:
    """After a step, wait and let no interrupt through."""
    for event in events:
        yield event
        if isinstance(event, Denoised):
            while True:
                with contextlib.suppress(KeyboardInterrupt):
                    time.sleep(30)


def _break(*_: Any) -> list[str]:
    raise RuntimeError("broken on purpose")


if _setting("BREAK_VIEW", ""):
    live.draw = _break
loading.load_session = _load  # type: ignore[assignment]

if __name__ == "__main__":
    sys.exit(main())
