"""What is said when a run is over."""

from __future__ import annotations

from dataclasses import replace

from scripted import LANGUAGE, script, spell

from dgemma_cli.terminal.entries import Commit, Finish
from dgemma_cli.terminal.narrator import Narrator
from dgemma_cli.terminal.summary import warnings


def test_a_loop_that_was_cut_off_is_told() -> None:
    narrator = Narrator(LANGUAGE)
    told = [narrator.tell(event) for event in script(spell("ha ha ha"), canvas=8, steps=2)]
    commits, finish = [entry for entry in told if isinstance(entry, Commit)], told[-1]
    assert isinstance(finish, Finish)
    assert warnings(finish, commits) == []
    looped = [replace(commits[0], trimmed=40)]
    assert warnings(finish, looped) == [
        f"block 1 of {finish.blocks} only repeated itself at its end: 40 tokens cut off (--no-guard keeps them)"
    ]
    assert warnings(replace(finish, stop_reason="repetition"), looped)[-1] == "stopped: the text only repeats itself"
