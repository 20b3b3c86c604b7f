"""The completion scripts in completions/ are what the command prints today, and complete in the shells they are for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import make_completions
import pexpect
import pytest


@pytest.fixture(scope="module", autouse=True)
def _command(tmp_path_factory: pytest.TempPathFactory) -> None:
    """``dgemma`` on the path, and a conversation and a recording to be offered."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "dgemma"
    root = Path(__file__).parent.parent
    script.write_text(f'#!/bin/sh\nPYTHONPATH="{root}" exec "{sys.executable}" -W ignore -m dgemma_cli "$@"\n')
    script.chmod(0o755)
    (folder / "poem.jsonl").touch()
    os.environ["PATH"] = f"{folder}:{os.environ['PATH']}"
    os.environ["COMPLETION_FOLDER"] = str(folder)


@pytest.mark.parametrize("shell", make_completions.SCRIPTS)
def test_current(shell: str) -> None:
    kept = (make_completions.FOLDER / make_completions.SCRIPTS[shell]).read_text(encoding="utf-8")
    assert kept == make_completions.script(shell), "run: python tools/make_completions.py"


def bash(line: str) -> str:
    return interactive("bash --norc --noprofile -i", f"source {make_completions.FOLDER}/dgemma.bash", line)


def zsh(line: str) -> str:
    load = f"autoload -Uz compinit; compinit -D -u; source {make_completions.FOLDER}/_dgemma"
    return interactive("zsh -f -i", load, line)


def fish(line: str) -> str:
    script = f"source {make_completions.FOLDER}/dgemma.fish; complete -C '{line}'"
    ran = subprocess.run(
        ["fish", "--no-config", "-c", script], capture_output=True, text=True, check=True, cwd=folder()
    )
    return ran.stdout


def folder() -> str:
    return os.environ["COMPLETION_FOLDER"]


def interactive(shell: str, load: str, line: str) -> str:
    """What a shell shows after ``line`` and TAB, without the line as it was typed."""
    variables = {**os.environ, "TERM": "dumb", "PS1": "$ ", "PROMPT_COMMAND": ""}
    child = pexpect.spawn(shell, env=variables, cwd=folder(), encoding="utf-8", timeout=60, dimensions=(40, 200))
    child.sendline(f"PS1='>' ; {load}; echo rea''dy")
    child.expect("ready")
    child.expect(">")
    child.send(line + "\t\t")
    child.expect(re.escape(line))
    child.send("\x05 #end\n")  # to the end of the line, and a comment whose echo tells that the shell is done
    child.expect("#end")
    shown = child.before
    child.close(force=True)
    return shown or ""


SHELLS: dict[str, Callable[[str], str]] = {"bash": bash, "zsh": zsh, "fish": fish}
CASES = [
    ("dgemma repl", "replay", "ay"),
    ("dgemma run --max-t", "--max-tokens", "okens"),
    ("dgemma run -m nan", "nano", "o"),
    ("dgemma run --preset bal", "balanced", "anced"),
    ("dgemma replay po", "poem.jsonl", "em.jsonl"),
]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("line", "whole", "rest"), CASES, ids=[case[0] for case in CASES])
def test_completes(shell: str, line: str, whole: str, rest: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    shown = SHELLS[shell](line)
    assert whole in shown or shown.strip().startswith(rest), shown


def test_conversations_are_offered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from dgemma_cli.chat.dialogue import Dialogue
    from dgemma_cli.chat.store import Store
    from dgemma_cli.commands.completing import chat_ids

    monkeypatch.setenv("DGEMMA_STATE_DIR", str(tmp_path))
    journal = Store(tmp_path).create("nano", Dialogue("Be brief."))
    assert [name for name, _ in chat_ids("")] == [journal.id]
    assert chat_ids("no such beginning") == []


LOOKED_AT = """
import sys
from dgemma_cli.__main__ import main
main([])
heavy = {"torch", "pydantic", "rich", "tokenizers", "httpx2", "huggingface_hub.hf_api"}
print(*heavy & set(sys.modules), end="", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("dgemma run --fit off -n 7 -m na", "nano"),
        ("dgemma run --pres", "--preset"),
        ("dgemma chats exp", "export"),
        ("dgemma chats export --form", "--format"),
        ("dgemma config set max_t", "max_tokens"),
        ("dgemma ", "quantize"),
    ],
)
def test_tab_imports_nothing_heavy(line: str, offered: str) -> None:
    words = line.split(" ")
    variables = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1), "_DGEMMA_COMPLETE": "complete_bash"}
    ran = subprocess.run(
        [sys.executable, "-c", LOOKED_AT], env={**os.environ, **variables}, capture_output=True, text=True, check=True
    )
    assert offered in ran.stdout.splitlines()
    assert ran.stderr == ""
