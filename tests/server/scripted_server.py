"""``dgemma serve`` with a scripted model, as a process of its own. See tests/tty/scripted_dgemma.py for its script.

A prompt has as many tokens as its text has characters. A message "fail: NAME" makes the model raise NAME; one that
begins with "say: " is answered by the rest of it.
"""

from __future__ import annotations

import builtins
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "terminal"))
sys.path.insert(0, str(Path(__file__).parent.parent / "tty"))

from scripted import ScriptedSession, script, slowly, spell
from scripted_dgemma import _setting as setting

from dgemma_cli import errors
from dgemma_cli.__main__ import main
from dgemma_cli.commands import loading
from dgemma_cli.engine.events import Event
from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError


class Shelf:
    """Writes the script, and what the prompt asks for."""

    nbytes = 0

    def reply(self, ids: Sequence[int], options: Options, conversation: str | None) -> Iterator[Event]:
        text = "".join(map(chr, ids))
        if text.startswith("fail: "):
            name = text.removeprefix("fail: ")
            raise (getattr(errors, name, None) or getattr(builtins, name))("as asked")
        said = text.removeprefix("say: ") if text.startswith("say: ") else setting("SAID", "Hello, world.")
        canvas, steps = (int(setting(name, "4")) for name in ("CANVAS", "STEPS"))
        thinking = setting("THINKING", "")
        events = script(spell(said, thinking)[: options.max_tokens], canvas, steps, seed=options.seed or 7)
        yield from slowly(events, int(setting("STEP_MS", "0")) / 1000)

    def forget(self) -> None:
        print("caches let go", file=sys.stderr, flush=True)


class Session(ScriptedSession):
    context, vocabulary, room, report = 4000, 0x110003, 1900, None

    def encode(self, messages: Sequence[Any], thinking: bool) -> list[int]:
        return [ord(c) for c in messages[-1].content]

    def encode_text(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def check(self, options: Options) -> None:
        if options.t_min is not None and options.t_max is not None and options.t_max < options.t_min:
            raise UsageError("t-max is below t-min.")

    def shelf(self, budget: int, parallel: int, reserved: int) -> Shelf:
        return Shelf()

    def in_use(self) -> dict[str, int]:
        return {"process": 1}

    def is_auto(self) -> tuple[bool, bool]:
        return True, True


def _load(*_: Any) -> Session:
    time.sleep(int(setting("LOAD_MS", "0")) / 1000)
    return Session(lambda: iter(()), folder=Path(setting("FOLDER", "models/scripted")))


loading.load_session = _load  # type: ignore[assignment]

if __name__ == "__main__":
    sys.exit(main())
