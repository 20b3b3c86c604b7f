"""The completion scripts in completions/ are what the command prints today, and they complete."""

from __future__ import annotations

import subprocess
from pathlib import Path

import make_completions
import pytest


@pytest.mark.parametrize("shell", make_completions.SCRIPTS)
def test_current(shell: str) -> None:
    kept = (make_completions.FOLDER / make_completions.SCRIPTS[shell]).read_text(encoding="utf-8")
    assert kept == make_completions.script(shell), "run: python tools/make_completions.py"


def completed(*words: str) -> list[str]:
    """What bash offers for the last of ``words``."""
    script = Path(make_completions.FOLDER, "dgemma.bash")
    line = f"source {script}; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _dgemma_completion dgemma"
    shell = subprocess.run(
        ["bash", "-c", line + '; printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True, check=True
    )
    return shell.stdout.split()


def test_bash_completes_commands_and_flags() -> None:
    assert completed("dgemma", "ru") == ["run"]
    assert completed("dgemma", "run", "--max-t") == ["--max-tokens"]
