"""A chat over a real terminal: typing, cancelling, leaving, and what is left on the screen and on disk."""

from __future__ import annotations

import json
import os
import re
import signal
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import emulated
import pytest
from emulated import COMMAND_LINE, Terminal

CHATTING = Path(__file__).parent / "chatting.py"
GREETING = "scripted on cpu (float32). /help lists the commands."


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Terminal]:
    monkeypatch.setattr(emulated, "SCRIPTED", CHATTING)

    def start(*arguments: str, variables: dict[str, str] | None = None, **script: Any) -> Terminal:
        own = {"DGEMMA_STATE_DIR": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1", **(variables or {})}
        if "answers" in script:
            script["answers"] = json.dumps(script["answers"])
        terminal = Terminal(*(arguments or ("chat",)), variables=own, **script)
        terminal.until(lambda lines: GREETING in lines and lines[-1] == ">")
        return terminal

    return start


def said(terminal: Terminal, line: str, *, end: str = "\r") -> None:
    """Type a line and wait for the next prompt."""
    before = len(terminal.lines())
    terminal.process.send(line + end)
    terminal.until(lambda lines: len(lines) > before and lines[-1] == ">")


def records(tmp_path: Path) -> list[dict[str, Any]]:
    (file,) = (tmp_path / "chats").iterdir()
    return [json.loads(line) for line in file.read_text().splitlines()]


def spoken(tmp_path: Path) -> list[str]:
    return [record["text"] for record in records(tmp_path) if "text" in record]


def left(terminal: Terminal) -> list[str]:
    """Ctrl-D; the screen that is left, without the last line, which tells the id."""
    terminal.process.send("\x04")
    assert terminal.finish() == 0
    assert terminal.is_clean()
    *lines, kept = terminal.lines()
    assert kept.startswith("kept: dgemma chat --resume ")
    return lines


def test_questions_and_answers_stand_in_the_scrollback_once(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    answers = ["First **bold** words.\n\n- a list\n- of two", "Second.\n\nAnd more of it."]
    terminal = chat(answers=answers, canvas=16, rows=12)
    said(terminal, "one")
    said(terminal, "two")
    assert [line for line in left(terminal) if line] == [
        COMMAND_LINE, GREETING,
        "> one", "First bold words.", " • a list", " • of two",
        "> two", "Second.", "And more of it.", ">",
    ]  # fmt: skip
    assert spoken(tmp_path) == ["one", answers[0], "two", answers[1]]


def test_ctrl_c_cancels_the_answer_and_the_chat_goes_on(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat(text="First sentence. Second sentence.", canvas=16, steps=20, step_ms=30)
    terminal.process.send("one\r")
    terminal.until(lambda lines: any("block 2" in line for line in lines))
    terminal.process.sendintr()
    terminal.until(lambda lines: lines[-1] == ">")
    terminal.process.send("two\r")
    terminal.until(lambda lines: any("step 2/" in line for line in lines))
    terminal.interrupt()
    terminal.until(lambda lines: lines[-1] == ">" and "two" in "".join(lines))
    assert left(terminal) == [
        COMMAND_LINE,
        GREETING,
        "> one",
        "First sentence.",
        "cancelled; what was finished stays in the conversation (/undo takes it back)",
        "> two",
        "cancelled; nothing was finished (/regen asks again, /edit changes the question)",
        ">",
    ]
    assert spoken(tmp_path) == ["one", "First sentence.", "two"]


def test_ctrl_c_at_the_prompt_clears_the_line(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat()
    terminal.process.send("not this")
    terminal.until(lambda lines: lines[-1] == "> not this")
    terminal.process.sendintr()
    terminal.until(lambda lines: lines[-1] == ">")
    terminal.process.sendintr()
    terminal.until(lambda lines: "Ctrl-D or /exit leaves" in lines and lines[-1] == ">")
    said(terminal, "but this")
    left(terminal)
    assert spoken(tmp_path) == ["but this", "Hello, world."]


def test_what_is_typed_during_an_answer_comes_after_it(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat(step_ms=100)
    terminal.process.send("one\r")
    terminal.until(lambda lines: any("step 1/" in line for line in lines))
    terminal.process.send("two\r")
    terminal.until(lambda lines: lines.count("Hello, world.") == 2 and lines[-1] == ">")
    assert left(terminal)[2:] == ["> one", "Hello, world.", "> two", "Hello, world.", ">"]
    assert spoken(tmp_path) == ["one", "Hello, world.", "two", "Hello, world."]


@pytest.mark.parametrize("live", ["--live", "--no-live"])
def test_what_is_typed_while_the_model_loads_comes_after_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, live: str
) -> None:
    monkeypatch.setattr(emulated, "SCRIPTED", CHATTING)
    own = {"DGEMMA_STATE_DIR": str(tmp_path), "PROMPT_TOOLKIT_NO_CPR": "1"}
    terminal = Terminal("chat", live, variables=own, load_ms="1500")
    while termios.tcgetattr(terminal.process.child_fd)[3] & termios.ECHO:
        assert terminal.read()
    assert GREETING not in terminal.lines()
    terminal.process.send("one\r")
    terminal.process.send("two\r")
    terminal.until(lambda lines: lines.count("Hello, world.") == 2 and lines[-1] == ">")
    assert left(terminal) == [
        COMMAND_LINE, GREETING, "> one", "Hello, world.", "> two", "Hello, world.", ">",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "keys",
    ["a\nb\r", "a\x1b\rb\r", '"""a\rb"""\r', "\x1b[200~a\rb\x1b[201~\r"],
    ids=["Ctrl-J", "Alt-Enter", "quotes", "paste"],
)
def test_a_question_of_several_lines(chat: Callable[..., Terminal], tmp_path: Path, keys: str) -> None:
    terminal = chat()
    terminal.process.send(keys)
    terminal.until(lambda lines: "Hello, world." in lines and lines[-1] == ">")
    left(terminal)
    assert spoken(tmp_path) == ["a\nb", "Hello, world."]


def test_tab_completes_commands_settings_and_files(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("text of the file")
    terminal = chat()
    for typed, shown in (("/und\t", "/undo"), ("/set entr\t", "/set entropy-bound"), ("/set preset ba\t", "balanced")):
        terminal.process.send(typed)
        terminal.until(lambda lines, shown=shown: lines[-1].endswith(shown))  # type: ignore[misc]
        terminal.process.sendintr()
        terminal.until(lambda lines: lines[-1] == ">")
    terminal.process.send(f"/file {tmp_path}/no\t")
    terminal.until(lambda lines: "notes.txt" in "".join(lines[-3:]))
    said(terminal, "")
    said(terminal, "so?")
    left(terminal)
    assert spoken(tmp_path)[0] == "notes.txt:\n\ntext of the file\n\nso?"


def test_the_editor(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nprintf "edited text" > "$1"\n')
    editor.chmod(0o700)
    terminal = chat(variables={"EDITOR": str(editor), "VISUAL": ""})
    terminal.process.send("\x07")
    terminal.until(lambda lines: lines[-1] == "> edited text")
    said(terminal, "")
    terminal.process.send("/editor\r")
    terminal.until(lambda lines: lines[-1] == "> edited text" and len(lines) > 5)
    said(terminal, "")
    left(terminal)
    assert spoken(tmp_path) == ["edited text", "Hello, world."] * 2


def test_edit_puts_the_question_into_the_line(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat()
    said(terminal, "one")
    terminal.process.send("/edit\r")
    terminal.until(lambda lines: lines[-1] == "> one" and lines.count("> one") == 2)
    said(terminal, " more")
    left(terminal)
    assert [record["record"] for record in records(tmp_path)[1:]] == ["user", "assistant", "undo", "user", "assistant"]
    assert spoken(tmp_path)[-2:] == ["one more", "Hello, world."]


def test_errors_are_lines_and_the_chat_goes_on(chat: Callable[..., Terminal]) -> None:
    terminal = chat(columns=120)
    said(terminal, "/undu")
    said(terminal, "/file nowhere")
    said(terminal, "hi")
    assert left(terminal)[2:] == [
        "> /undu",
        "error: There is no command /undu.",
        "  Near: /undo",
        "  To send it as a question: //undu",
        "> /file nowhere",
        "error: nowhere cannot be read: No such file or directory.",
        "> hi",
        "Hello, world.",
        ">",
    ]


def test_bare_run_on_a_terminal_chats(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat("run", "-s", "Be brief.", variables={"DGEMMA_COLOR_BY": "entropy"})
    said(terminal, "one")
    left(terminal)
    assert spoken(tmp_path) == ["Be brief.", "one", "Hello, world."]


def test_a_conversation_is_continued(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat()
    said(terminal, "one")
    left(terminal)
    terminal = chat("chat", "--continue")
    said(terminal, "two")
    assert left(terminal)[2:-1] == [
        "One turn so far:", "> one", "", "Hello, world.", "> two", "Hello, world.",
    ]  # fmt: skip
    assert spoken(tmp_path) == ["one", "Hello, world.", "two", "Hello, world."]


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [(("chat", "--no-save"), {}), (("chat",), {"DGEMMA_SAVE": "0"}), (("run",), {"DGEMMA_SAVE": "0"})],
)
def test_nothing_is_kept_where_nothing_is_to_be(
    chat: Callable[..., Terminal], tmp_path: Path, arguments: tuple[str, ...], variables: dict[str, str]
) -> None:
    terminal = chat(*arguments, variables={"DGEMMA_NO_HISTORY": "1", **variables})
    said(terminal, "one")
    terminal.process.send("\x04")
    assert terminal.finish() == 0
    assert list(tmp_path.iterdir()) == []


def test_lines_come_back_in_the_next_chat_and_only_for_their_owner(
    chat: Callable[..., Terminal], tmp_path: Path
) -> None:
    terminal = chat()
    said(terminal, "a line to remember")
    left(terminal)
    assert (tmp_path / "history").stat().st_mode & 0o777 == 0o600
    terminal = chat()
    terminal.process.send("\x1b[A")
    terminal.until(lambda lines: lines[-1] == "> a line to remember")
    terminal.process.sendintr()
    terminal.until(lambda lines: lines[-1] == ">")
    terminal.process.send("\x04")
    assert terminal.finish() == 0


@pytest.mark.parametrize("moment", ["prompt", "answer"])
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGKILL, 137)],
    ids=["TERM", "HUP", "KILL"],
)
def test_a_killed_chat_has_kept_all_but_the_reply_in_flight(
    chat: Callable[..., Terminal], tmp_path: Path, moment: str, number: int, code: int
) -> None:
    terminal = chat(step_ms=50, steps=10)
    said(terminal, "one")
    if moment == "answer":
        terminal.process.send("two\r")
        terminal.until(lambda lines: any("step 2/" in line for line in lines))
    terminal.signal(number)
    assert terminal.finish() == code
    assert spoken(tmp_path) == ["one", "Hello, world.", *(["two"] if moment == "answer" else [])]


def test_a_terminal_that_goes_away_ends_the_chat(chat: Callable[..., Terminal], tmp_path: Path) -> None:
    terminal = chat(step_ms=50, steps=10)
    said(terminal, "one")
    terminal.process.send("two\r")
    terminal.until(lambda lines: any("step 2/" in line for line in lines))
    pid = terminal.process.pid
    os.close(terminal.process.child_fd)
    for _ in range(400):
        if os.waitpid(pid, os.WNOHANG)[0]:
            break
        time.sleep(0.05)
    else:
        os.kill(pid, signal.SIGKILL)
        raise AssertionError("the process goes on without a terminal")
    terminal.process.closed = terminal.process.terminated = True
    assert spoken(tmp_path)[:3] == ["one", "Hello, world.", "two"]


def test_a_long_reply_and_a_resize(chat: Callable[..., Terminal]) -> None:
    """Fifty blocks; the emulator does not reflow, so the window only grows."""
    text = "\n\n".join(f"Paragraph {number}." for number in range(52))
    terminal = chat(text=text, canvas=16, steps=2, step_ms=5, rows=10)
    terminal.process.send("go\r")
    terminal.until(lambda lines: any(re.search(r"block [2-5]\d", line) for line in lines))
    terminal.resize(100, 20)
    terminal.until(lambda lines: lines[-1] == ">" and "Paragraph 51." in lines)
    assert left(terminal)[2:-1] == ["> go", *text.split("\n")]
