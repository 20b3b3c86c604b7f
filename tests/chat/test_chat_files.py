"""What a chat reads from files and writes to them, and to the clipboard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from talk import Talk, kept, talk

from dgemma_cli.chat.clipboard import copy_text
from dgemma_cli.errors import DgemmaError, UsageError


def test_a_recording_needs_a_folder(going: Talk) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        going.say("/record /no/such/run.jsonl")
    going.say("hi")
    assert going.turns == [("hi", "Fine.")]


def test_save_and_load(going: Talk, tmp_path: Path) -> None:
    going.say("/system S")
    going.say("one")
    path = tmp_path / "saved.jsonl"
    going.say(f"/save {path}")
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="already"):
        going.say(f"/save {path}")
    going.say("two")
    going.say(f"/save -f {path}")
    going.say("/clear")
    going.say(f"/load {path}")
    assert kept(going) == going.turns == [("one", "Fine."), ("two", "Fine.")]
    path.write_bytes(path.read_bytes()[:-20])
    damaged = path.read_bytes()
    for bad in (path, tmp_path / "none", tmp_path):
        with pytest.raises(UsageError):
            going.say(f"/load {bad}")
    assert path.read_bytes() == damaged
    assert len(going.turns) == 2


def test_a_file_goes_with_the_next_question_only(going: Talk, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("a\nb\n")
    going.say(f"/file {file}")
    assert "notes.txt: 4 bytes, 2 lines" in going.told()
    going.say("Sum up.")
    going.say("Thanks.")
    assert going.turns == [("notes.txt:\n\na\nb\n\n\nSum up.", "Fine."), ("Thanks.", "Fine.")]
    (tmp_path / "one").write_text("no end")
    going.say(f"/file {tmp_path / 'one'}")
    assert "one: 6 bytes, 1 line, goes" in going.told()
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    for bad in (tmp_path / "none", tmp_path, tmp_path / "binary", ""):
        with pytest.raises(UsageError):
            going.say(f"/file {bad}")


def test_copy_goes_through_the_terminal_where_there_is_no_desktop(going: Talk) -> None:
    with pytest.raises(UsageError):
        going.say("/copy")
    going.say("hi")
    going.printed()
    going.say("/copy")
    assert going.printed() == "\x1b]52;c;RmluZS4=\x07"


def test_copy_goes_through_the_desktops_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "xclip"
    program.write_text(f'#!/bin/sh\ncat > "{tmp_path}/clipboard"; test "$*" = "-selection clipboard"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    desktop = replace(talk(tmp_path).chat.environment, variables={"DISPLAY": ":0"})
    assert copy_text("Fine: ░", desktop) == "copied"
    assert (tmp_path / "clipboard").read_text() == "Fine: ░"
    program.write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(DgemmaError, match="xclip failed"):
        copy_text("Fine.", desktop)


def test_a_recording_of_the_next_answer_only(going: Talk, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    going.say(f"/record {path}")
    going.say("hi")
    lines = path.read_text()
    going.say("again")
    assert path.read_text() == lines
    events = [json.loads(line)["event"] for line in lines.splitlines()]
    assert (events[0], events[-1], events.count("start")) == ("start", "finish", 1)
