"""``dgemma`` with a scripted model that converses, as a process of its own. See scripted_dgemma.py for what it writes.

SCRIPT_ANSWERS: a JSON list of the answers, the last of them again and again; without it each is SCRIPT_TEXT.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import scripted_dgemma  # puts the scripted model in the loader's place
from scripted import ScriptedSession, script, slowly, spell

from dgemma_cli.__main__ import main
from dgemma_cli.commands import loading
from dgemma_cli.engine.events import Event
from dgemma_cli.engine.options import Options


class Conversing(ScriptedSession):
    room = 1000

    def converse(self) -> Conversing:
        return self

    def reply(self, ids: Sequence[int], options: Options) -> Iterator[Event]:
        answers = json.loads(os.environ.get("SCRIPT_ANSWERS", "[]"))
        if not answers:
            return self.generate(ids, options)
        text = answers[min(len(self.options), len(answers) - 1)]
        canvas, steps = int(os.environ["SCRIPT_CANVAS"]), int(os.environ["SCRIPT_STEPS"])
        self.events = lambda: slowly(script(spell(text), canvas, steps), int(os.environ["SCRIPT_STEP_MS"]) / 1000)
        return self.generate(ids, options)

    def forget(self) -> None:
        raise AssertionError("the cache is not to be let go here")


def _load(*arguments: Any) -> Conversing:
    made = scripted_dgemma._load(*arguments)
    return Conversing(made.events)


loading.load_session = _load  # type: ignore[assignment]

if __name__ == "__main__":
    sys.exit(main())
