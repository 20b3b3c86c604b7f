"""``dgemma chats``, and what ``dgemma chat`` refuses."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dgemma_cli.__main__ import main
from dgemma_cli.chat.dialogue import Dialogue, Turn
from dgemma_cli.chat.store import Store
from dgemma_cli.terminal.environment import Environment

TALK = Dialogue("Be brief.", [Turn("What is\nthis?", "A \x1b[31mtest.", "hm")])

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def dgemma(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    def run(*arguments: str, terminal: bool = False, **streams: Any) -> tuple[int, str, str]:
        out, err = io.BytesIO(), io.BytesIO()
        environment = Environment(
            stdin=io.BytesIO(),
            stdout=out,
            stderr=err,
            stdin_is_terminal=streams.get("stdin", False),
            stdout_is_terminal=terminal,
            stderr_is_terminal=streams.get("stderr", False),
            stdout_is_pipe=not terminal,
            encoding="utf-8",
            variables={"TERM": "xterm", "DGEMMA_STATE_DIR": str(tmp_path)},
        )
        monkeypatch.setattr(Environment, "current", lambda: environment)
        code = main(list(arguments))
        return code, out.getvalue().decode(), err.getvalue().decode()

    return run


@pytest.fixture
def identifier(tmp_path: Path) -> str:
    journal = Store(tmp_path).create("nano", TALK)
    journal.close()
    return journal.id


def test_list(dgemma: Run, identifier: str, tmp_path: Path) -> None:
    _, out, _ = dgemma("chats", "list")
    header, row = out.splitlines()
    assert header.split() == ["ID", "CHANGED", "TURNS", "MODEL", "BEGINS"]
    assert row.startswith(identifier)
    assert row.endswith("1      nano   What is this?")
    (entry,) = json.loads(dgemma("chats", "list", "--json")[1])
    assert (entry["id"], entry["turns"], entry["model"], entry["damage"]) == (identifier, 1, "nano", None)
    (tmp_path / "chats" / "broken.jsonl").write_text("junk")
    assert "[damaged: " in dgemma("chats", "list")[1]


def test_no_conversations(dgemma: Run) -> None:
    assert dgemma("chats", "list") == (0, "", "No conversation is kept. Begin one: dgemma chat\n")
    assert dgemma("chats", "list", "--json")[1] == "[]\n"


def test_show_is_exact_in_a_pipe_and_harmless_on_a_terminal(dgemma: Run, identifier: str) -> None:
    expected = "system: Be brief.\n\n> What is\nthis?\n\nA \x1b[31mtest.\n"
    assert dgemma("chats", "show", identifier[:-1]) == (0, expected, "")
    assert dgemma("chats", "show", identifier, terminal=True)[1] == expected.replace("\x1b", "")


def test_export(dgemma: Run, identifier: str, tmp_path: Path) -> None:
    assert dgemma("chats", "export", identifier)[1] == (
        "## System\n\nBe brief.\n\n## You\n\nWhat is\nthis?\n\n## Model\n\nA \x1b[31mtest.\n"
    )
    messages = json.loads(dgemma("chats", "export", identifier, "--format", "json")[1])["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant"]
    file = tmp_path / "out.jsonl"
    assert dgemma("chats", "export", identifier, "--format", "jsonl", "-o", str(file)) == (0, "", "")
    assert file.read_bytes() == (tmp_path / "chats" / f"{identifier}.jsonl").read_bytes()


def test_a_damaged_one_is_shown_as_far_as_it_goes_and_left_alone(dgemma: Run, identifier: str, tmp_path: Path) -> None:
    path = tmp_path / "chats" / f"{identifier}.jsonl"
    path.write_bytes(path.read_bytes() + b"junk")
    code, out, err = dgemma("chats", "show", identifier)
    assert (code, "this?" in out) == (0, True)
    assert err.startswith("warning: ")
    assert path.read_bytes().endswith(b"junk")


def test_rm_asks_and_never_without_somebody_to_ask(dgemma: Run, identifier: str, tmp_path: Path) -> None:
    path = tmp_path / "chats" / f"{identifier}.jsonl"
    code, _, err = dgemma("chats", "rm", identifier)
    assert (code, "--yes" in err, path.exists()) == (2, True, True)
    assert dgemma("chats", "rm", identifier, "nothing", "-y")[0] == 2
    assert path.exists()
    assert dgemma("chats", "rm", identifier, "-y") == (0, "", "")
    assert not path.exists()


@pytest.mark.parametrize("typed", ["n\n", "\n", "", "y\n"], ids=["no", "Enter", "Ctrl-D", "yes"])
def test_rm_does_what_is_answered(
    dgemma: Run, identifier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(typed))
    code, out, err = dgemma("chats", "rm", identifier, stdin=True, terminal=True, stderr=True)
    assert (code, out) == (0, "")
    assert err.startswith(f"{identifier}  1 turn  What")
    assert ("Nothing was removed." in err) is (typed != "y\n")
    assert (tmp_path / "chats" / f"{identifier}.jsonl").exists() is (typed != "y\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chats", "show", "nothing"], "There is no conversation 'nothing'."),
        (["chats", "export", "nothing"], "There is no conversation 'nothing'."),
        (["chats", "shwo"], "No such command 'shwo'."),
        (["chat", "--continue", "--resume", "x"], "--continue and --resume contradict each other."),
        (["chat", "--continue"], "There is no conversation to continue."),
        (["chat", "--resume", "x"], "There is no conversation 'x'."),
        (["chat", "--live"], "--live cannot draw here"),
        (["chat", "--steps", "0"], "steps must be at least 1, not 0."),
        (["run", "--json"], "There is no prompt."),
        (["run", "-q"], "There is no prompt."),
    ],
)
def test_wrong_usage(dgemma: Run, arguments: list[str], message: str) -> None:
    code, out, err = dgemma(*arguments, terminal=True, stdin=True)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")


def test_a_chat_needs_a_terminal(dgemma: Run) -> None:
    for streams in ({"stdin": False, "terminal": True}, {"stdin": True, "terminal": False}):
        code, _, err = dgemma("chat", **streams)
        assert code == 2
        assert err.startswith("error: dgemma chat needs a terminal")


def test_no_torch_for_what_needs_none(dgemma: Run, identifier: str) -> None:
    """In a process of its own, since this one may have it."""
    import subprocess

    code = "import sys; from dgemma_cli.__main__ import main; main(['chat', '--help']); main(['chats', 'list']);"
    code += "sys.exit('torch' in sys.modules or 'prompt_toolkit' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0
