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
import shellingham
from typer.main import get_command

from dgemma_cli.commands.app import app
from dgemma_cli.commands.shells import SCRIPTS, current_shell, install
from dgemma_cli.commands.tab import offers
from dgemma_cli.errors import DiskError, UsageError


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


@pytest.mark.parametrize("shell", SCRIPTS)
def test_current(shell: str) -> None:
    kept = (make_completions.FOLDER / make_completions.FILES[shell]).read_text(encoding="utf-8")
    assert kept == SCRIPTS[shell], "run: python tools/make_completions.py"


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


def interactive(shell: str, load: str, line: str, home: Path | None = None) -> str:
    """What a shell shows after ``line`` and TAB, without the line as it was typed."""
    variables = {**os.environ, "TERM": "dumb", "PS1": "$ ", "PROMPT_COMMAND": ""}
    if home is not None:
        variables["HOME"] = str(home)
    child = pexpect.spawn(shell, env=variables, cwd=folder(), encoding="utf-8", timeout=60, dimensions=(40, 200))
    child.sendline(f"PS1='>' ; {load}; echo rea''dy")
    child.expect("ready")
    child.expect(">")
    child.send(line + "\t")
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
    ('dgemma run "two words" -m nan', "nano", "o"),
    ("dgemma pull diffusiongemma:nvfp4-", "diffusiongemma:nvfp4-redhat", "redhat"),
    ("dgemma run --preset bal", "balanced", "anced"),
    ("dgemma run --preset=bal", "--preset=balanced", "anced"),
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
main()
heavy = {"torch", "pydantic", "rich", "tokenizers", "httpx2", "huggingface_hub.hf_api"}
print(*heavy & set(sys.modules), end="", file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("run --fit off -n 7 -m na", "nano"),
        ("run --pres", "--preset"),
        ("config set max_t", "max_tokens"),
        ("", "quantize"),
    ],
)
def test_tab_imports_nothing_heavy(line: str, offered: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", LOOKED_AT, *line.split(" ")],
        env={**os.environ, "_DGEMMA_COMPLETE": "bash"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert offered in ran.stdout.splitlines()
    assert ran.stderr == ""


def offered(line: str) -> list[str]:
    return [word for word, _ in offers(get_command(app), line.split(" "))]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("chats exp", ["export"]),
        ("chats export --form", ["--format"]),
        ("chats export --format ", ["markdown", "json", "jsonl"]),
        ("chats export --format=j", ["--format=json", "--format=jsonl"]),
        ("run --think hello -m n", ["nano"]),  # a flag takes no value, a prompt no options
        ("run -n 5 --max", []),  # given already
        ("run --no-live --liv", []),
        ("run -m --pres", []),  # the value of an option, whatever it looks like
        ("run -- --pres", []),
        ("run --report-t", []),
        ("serve --report-t", []),  # hidden
        ("nothing ru", []),
        ("--debug ru", ["run"]),
        ("bench --prompt a --promp", ["--prompt"]),  # may be repeated
        ("replay --color-by e", ["entropy"]),
        ("config get chat.pre", []),
        ("quantize nano --den", ["--dense"]),
        ("quantize n", ["nano"]),
        ("quantize nano n", []),  # the folder to be written
        ("config set preset f", ["fast"]),
        ("config set chat.markdown ", ["true", "false"]),
        ("config set dtype ", ["auto", "bfloat16", "float32"]),
        ("config set steps ", []),
        ("config set nothing ", []),
    ],
)
def test_offers(line: str, words: list[str]) -> None:
    assert offered(line) == words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_install(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    variables = {**os.environ, "HOME": str(tmp_path), "TERM": "dumb"}
    for name in ("XDG_DATA_HOME", "XDG_CONFIG_HOME", "ZDOTDIR"):
        variables.pop(name, None)
    start = tmp_path / f".{shell}rc"
    start.write_text("# mine")
    for flag in ("--show-completion", "--install-completion", "--install-completion"):
        ran = subprocess.run([shell, "-c", f"dgemma {flag}; true"], env=variables, capture_output=True, text=True)
        assert ran.stderr == ""
        if flag == "--show-completion":
            assert ran.stdout == SCRIPTS[shell]
            assert list(tmp_path.rglob("*dgemma*")) == []
    added = start.read_text().removeprefix("# mine").strip().splitlines()
    assert len(added) == (0 if shell == "fish" else 1)
    if shell == "fish":
        shown = subprocess.run(
            ["fish", "-c", "complete -C 'dgemma run -m nan'"], env=variables, capture_output=True, text=True
        ).stdout
    else:
        shown = interactive(f"{shell} -i", "true", "dgemma run -m nan", tmp_path)
    assert "nano" in shown or shown.strip().startswith("o"), shown


def test_the_users_shell_where_none_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise shellingham.ShellDetectionFailure

    monkeypatch.setattr(shellingham, "detect_shell", none)
    assert current_shell({"SHELL": "/usr/bin/zsh"}) == "zsh"
    with pytest.raises(UsageError, match="this shell"):
        current_shell({})


def test_a_home_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".local").touch()
    with pytest.raises(DiskError, match="cannot be written"):
        install("bash", {"HOME": str(tmp_path)})


def test_a_shell_without_a_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shellingham, "detect_shell", lambda: ("tcsh", "/bin/tcsh"))
    with pytest.raises(UsageError, match="tcsh"):
        current_shell({})
