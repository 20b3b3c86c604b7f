from __future__ import annotations

import pytest
from scripted import LANGUAGE, script, spell

from dgemma_cli.terminal.entries import Start, Step
from dgemma_cli.terminal.narrator import Narrator
from dgemma_cli.terminal.pace import Clock, Pace


@pytest.mark.parametrize("slow", [0.0, 0.4])
def test_the_pace_leaves_out_what_steps_were_held_for(slow: float) -> None:
    """Two blocks of 8 tokens, 4 steps each; a step takes 0.1 s and the rest no time. The script's prompt takes 0.25."""
    clock, narrator, now = Clock(), Narrator(LANGUAGE), 1.0
    clock.note(Start("nano", "cpu", "float32", "hi", None, slow), now)
    assert clock.pace == Pace()
    for event in script(spell("sixteen letters"), canvas=8, steps=4):
        entry = narrator.tell(event)
        now += 0.1 if isinstance(entry, Step) else 0.0
        clock.note(entry, now)
        now += slow if isinstance(entry, Step) else 0.0
    assert clock.pace.step_seconds == pytest.approx(0.1)
    assert clock.pace.tokens_per_second == pytest.approx(15 / (0.25 + 8 * 0.1))
