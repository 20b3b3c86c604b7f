"""The commands of a chat, with a scripted model."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scripted import script, spell
from talk import ScriptedLoaded, Talk, talk

from dgemma_cli.chat.clipboard import copy_text
from dgemma_cli.chat.completion import complete
from dgemma_cli.chat.store import Store
from dgemma_cli.engine.events import BlockCommitted, Event
from dgemma_cli.errors import DgemmaError, ModelUnavailable, OutOfMemory, UsageError
from dgemma_cli.terminal.cancel import Cancelled
from dgemma_cli.writing import InProcess


@pytest.fixture
def going(tmp_path: Path) -> Iterator[Talk]:
    made = talk(tmp_path)
    yield made
    made.chat.close()


def kept(going: Talk) -> list[tuple[str, str]]:
    """The turns as the file has them."""
    (found,) = [entry for entry in Store(going.chat.store.folder.parent).all() if entry.id == going.chat.journal.id]  # type: ignore[union-attr]
    assert found.damage is None
    assert found.dialogue == going.chat.dialogue
    return [(turn.user, turn.answer) for turn in found.dialogue.turns]


def shown(going: Talk) -> list[tuple[str, str]]:
    """What the model was shown last."""
    return [(message.role, message.content) for message in going.model.messages]


def test_answers_go_out_and_into_the_history(going: Talk) -> None:
    going.say("How are you?")
    going.model.messages.clear()
    going.say("And you?")
    assert going.printed() == "Fine.\nFine.\n"
    assert shown(going) == [("user", "How are you?"), ("assistant", "Fine."), ("user", "And you?")]
    assert kept(going) == going.turns == [("How are you?", "Fine."), ("And you?", "Fine.")]


def test_two_slashes_send_one(going: Talk) -> None:
    going.say("//undo is what?")
    assert going.turns == [("/undo is what?", "Fine.")]


@pytest.mark.parametrize(("line", "near"), [("/undu", "/undo"), ("/his", "/history"), ("/modle x", "/model")])
def test_an_unknown_command_gets_near_names_and_the_way_out(going: Talk, line: str, near: str) -> None:
    with pytest.raises(UsageError) as caught:
        going.say(line)
    assert near in caught.value.hint
    assert f"/{line}" in caught.value.hint.splitlines()[-1]
    assert going.turns == []


def test_help_names_every_command(going: Talk) -> None:
    from dgemma_cli.chat.slash import ALIASES, COMMANDS

    going.say("/help")
    text = going.printed()
    assert all(f"/{name} " in text for name in COMMANDS)
    assert set(ALIASES.values()) <= set(COMMANDS)
    assert not set(ALIASES) & set(COMMANDS)


def test_the_system_prompt(going: Talk) -> None:
    going.say("/system Be brief.")
    going.say("Hi")
    assert shown(going)[0] == ("system", "Be brief.")
    assert kept(going) == [("Hi", "Fine.")]
    going.say("/system -")
    assert kept(going) == [("Hi", "Fine.")]
    assert going.chat.dialogue.system is None


def test_undo_regen_and_edit(going: Talk) -> None:
    going.say("one")
    going.say("two")
    going.say("/undo")
    assert kept(going) == going.turns == [("one", "Fine.")]
    going.answers("Better.")
    going.say("/regen")
    assert kept(going) == going.turns == [("one", "Better.")]
    going.say("/edit")
    assert going.chat.draft.text == "one"
    going.say("uno")
    assert kept(going) == going.turns == [("uno", "Better.")]
    going.say("/undo")
    with pytest.raises(UsageError, match="nothing"):
        going.say("/undo")


def test_regen_takes_another_seed(going: Talk) -> None:
    going.say("/set seed 3")
    going.say("one")
    going.say("/regen")
    assert "random seed" in going.told()
    going.say("/regen --seed 9")
    assert [options.seed for options in going.model.options] == [3, None, 9]
    with pytest.raises(UsageError):
        going.say("/regen --seed x")
    assert going.turns == [("one", "Fine.")]


def test_settings_reach_the_engine_and_wrong_ones_change_nothing(going: Talk) -> None:
    for line in ("/set steps 5", "/set t-max 0.9", "/set preset fast", "/set think on", "/set max-tokens=7"):
        going.say(line)
    going.say("hi")
    options = going.model.options[0]
    assert (options.steps, options.t_max, options.preset, options.max_tokens) == (5, 0.9, "fast", 7)
    assert options.drafts
    assert going.model.thinking == [True]
    before = going.chat.settings
    for line in (
        "/set steps 0",
        "/set steps x",
        "/set seed 1.5",
        "/set preset fats",
        "/set think maybe",
        "/set step 5",
        "/set steps",
        "/set drafts off",
    ):
        with pytest.raises(UsageError):
            going.say(line)
    assert going.chat.settings == before
    going.say("/set steps default")
    assert going.chat.settings.options.steps is None


def test_a_recording_needs_a_folder(going: Talk) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        going.say("/record /no/such/run.jsonl")
    going.say("hi")
    assert going.turns == [("hi", "Fine.")]


def test_what_there_is_no_memory_for_is_not_set(going: Talk) -> None:
    before = going.chat.settings
    with pytest.raises(OutOfMemory, match="9 GB") as caught:
        going.say("/set best-of 5")
    assert "best-of 4" in caught.value.hint
    assert going.chat.settings == before
    going.say("/set best-of 4")
    assert going.chat.settings.options.best_of == 4
    going.chat.loaded = None  # /model failed: there is nothing to hold it against
    going.say("/set best-of 5")


def test_clear_begins_another_conversation_and_keeps_the_first(going: Talk) -> None:
    going.say("/system S")
    going.say("one")
    first = going.chat.journal.id  # type: ignore[union-attr]
    going.say("/clear")
    going.say("two")
    store = going.chat.store
    assert store is not None
    assert going.chat.journal is not None
    assert going.chat.journal.id != first
    assert {entry.id: [turn.user for turn in entry.dialogue.turns] for entry in store.all()} == {
        first: ["one"],
        going.chat.journal.id: ["two"],
    }
    assert going.chat.dialogue.system == "S"


def test_compact_drops_the_oldest(going: Talk) -> None:
    going.say("/system S")
    for text in ("one", "two", "three"):
        going.say(text)
    going.say("/compact 2")
    assert kept(going) == going.turns == [("three", "Fine.")]
    assert going.chat.dialogue.system == "S"
    for line in ("/compact 2", "/compact x", "/compact 0"):
        with pytest.raises(UsageError):
            going.say(line)
    going.model.room = 30
    going.say("12345678")  # 1 + 5 + 5 + 8 + 5 tokens
    going.say("/compact")  # down to 15 at the most
    assert going.turns == [("12345678", "Fine.")]


def test_a_full_context_is_told_before_and_when_it_is_there(going: Talk) -> None:
    going.say("a" * 960)
    assert "/compact" not in going.told()  # the scripted prompt says it has five tokens
    with pytest.raises(UsageError, match="context is full") as caught:
        going.say("b" * 100)
    assert "/compact" in caught.value.hint
    assert "/regen" in caught.value.hint
    going.say("/compact 1")
    going.say("/regen")
    assert kept(going) == going.turns == [("b" * 100, "Fine.")]
    going.model.room = 11
    going.say("/compact 1")
    going.say("c")  # five tokens and five of the answer
    assert "the context is 91% full: /compact" in going.told()


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


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("hello", []),
        ("//un", []),
        ("/un", ["undo"]),
        ("/set pres", ["preset"]),
        ("/set preset f", ["fast"]),
        ("/set think o", ["on", "off"]),
        ("/set steps ", ["default"]),
        ("/model n", ["nano"]),
        ("/regen --s", ["--seed "]),
        ("/undo x", []),
        ("/file no", ["notes.txt", "novels/"]),
        ("/file novels/", ["novels/one.txt"]),
        ("/save nowhere/", []),
    ],
)
def test_tab_in_a_chat(before: str, after: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("novels").mkdir()
    for name in ("notes.txt", ".hidden", "novels/one.txt", "novels/.two.txt"):
        Path(name).touch()
    found = list(complete(before, lambda typed: [name for name in ("nano", "other") if name.startswith(typed)]))
    assert [text for text, _ in found] == after
    assert all(before.endswith(text[:typed]) for text, typed in found)


def test_a_recording_of_the_next_answer_only(going: Talk, tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    going.say(f"/record {path}")
    going.say("hi")
    lines = path.read_text()
    going.say("again")
    assert path.read_text() == lines
    events = [json.loads(line)["event"] for line in lines.splitlines()]
    assert (events[0], events[-1], events.count("start")) == ("start", "finish", 1)


def test_stats_show_history_and_exit(going: Talk) -> None:
    with pytest.raises(UsageError):
        going.say("/stats")
    going.say("hi")
    going.told()
    going.say("/stats")
    assert going.told().startswith("5 of 5 prompt tokens encoded, 5 tokens, 1 block")
    going.say("/show")
    assert "7 of 1,000 tokens" in going.told()
    going.printed()
    going.say("/history")
    assert going.printed() == "> hi\n\nFine.\n"
    going.say("/exit")
    assert going.chat.leaving
    for name in ("undo", "exit", "stats", "help", "show", "history", "copy", "clear", "edit", "editor"):
        with pytest.raises(UsageError, match="takes nothing"):
            going.say(f"/{name} x")


def test_another_model_goes_on_with_the_conversation(tmp_path: Path) -> None:
    other = ScriptedLoaded(lambda: script(spell("Other.")), name="other")
    loads: list[str] = []

    def load(name: str) -> Any:
        loads.append(name)
        if name == "bad":
            raise ModelUnavailable("There is no model 'bad'.")
        return InProcess(other if name == "other" else going.model)

    going = talk(tmp_path, load=load)
    going.say("one")
    with pytest.raises(ModelUnavailable) as caught:
        going.say("/model bad")
    assert "scripted goes on" in caught.value.hint
    assert loads == ["bad", "scripted"]
    going.say("/model other")
    going.say("two")
    assert going.turns == [("one", "Fine."), ("two", "Other.")]
    going.chat.close()


def partly(count: int, error: BaseException | None) -> Iterator[Event]:
    """``count`` blocks, and then ``error`` or the user's Ctrl-C."""
    for event in script(spell("First part. Second part."), canvas=12):
        yield event
        if isinstance(event, BlockCommitted) and event.index + 1 == count:
            raise error or Cancelled
    raise AssertionError


def test_a_cancelled_answer_keeps_what_is_finished(going: Talk) -> None:
    going.answers(lambda: partly(1, None))
    going.say("hi")
    assert "cancelled" in going.told()
    assert kept(going) == going.turns == [("hi", "First part.")]
    assert going.chat.dialogue.turns[0].cut


def test_an_answer_cancelled_before_a_word_leaves_the_question(going: Talk) -> None:
    def nothing() -> Iterator[Event]:
        yield from itertools.islice(script(spell("Fine.")), 3)
        raise Cancelled

    going.answers(nothing)
    going.say("hi")
    assert "/regen" in going.told()
    assert going.turns == []
    assert kept(going) == []
    going.answers("Well.")
    going.say("/regen")
    assert kept(going) == going.turns == [("hi", "Well.")]


@pytest.mark.parametrize("error", [MemoryError(), OutOfMemory("gone"), type("OutOfMemoryError", (RuntimeError,), {})()])
def test_out_of_memory_frees_the_cache_and_keeps_the_chat(going: Talk, error: Exception) -> None:
    going.say("one")
    going.answers(lambda: partly(1, error))
    with pytest.raises(OutOfMemory, match="conversation is whole"):
        going.say("two")
    assert going.model.forgotten == 1
    assert kept(going) == going.turns == [("one", "Fine.")]
    going.answers("Now.")
    going.say("/regen")
    assert kept(going) == going.turns == [("one", "Fine."), ("two", "Now.")]


def test_thoughts_are_kept_apart(going: Talk) -> None:
    going.answers(lambda: script(spell("Yes.", thinking="hm")))
    going.say("hi")
    going.model.messages.clear()
    going.say("so?")
    assert going.printed() == "Yes.\nYes.\n"
    assert shown(going)[1] == ("assistant", "Yes.")
    assert going.chat.dialogue.turns[0].thinking == "hm"
    assert "hm" not in going.told()
    going.say("/set show-thinking on")
    going.say("and?")
    assert "hm\n" in going.told()


def test_a_thought_that_does_not_end_is_shown_and_told(going: Talk) -> None:
    from scripted import BEGIN_THOUGHT

    going.answers(lambda: script([BEGIN_THOUGHT, *map(ord, "endless")]))
    going.say("hi")
    told = going.told()
    assert "endless\n" in told
    assert "ended within a thought" in told
    assert going.printed().strip() == ""
    assert going.turns == []
    assert going.chat.dialogue.question == "hi"


def test_a_disk_that_fails_is_told_once_and_the_chat_goes_on(tmp_path: Path) -> None:
    (tmp_path / "chats").write_text("in the way")
    going = talk(tmp_path)
    going.say("one")
    assert "not kept from here on" in going.told()
    going.say("two")
    assert going.told() == ""
    assert len(going.turns) == 2


def test_nothing_is_written_where_nothing_is_to_be_kept(tmp_path: Path) -> None:
    going = talk(None)
    going.say("one")
    going.say("/undo")
    assert list(tmp_path.iterdir()) == []


def test_text_that_is_none_is_refused(going: Talk) -> None:
    for line in ("a\udce9", "/system a\udce9"):
        with pytest.raises(DgemmaError, match="UTF-8"):
            going.say(line)
    assert going.turns == []
    assert going.chat.dialogue.question is None
