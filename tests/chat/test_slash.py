"""The commands of a chat, with a scripted model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripted import script, spell
from talk import ScriptedLoaded, Talk, kept, shown, talk

from dgemma_cli.chat.completion import complete
from dgemma_cli.errors import ModelUnavailable, OutOfMemory, UsageError
from dgemma_cli.writing import InProcess


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


def test_what_follows_a_command_may_stand_on_the_next_line(going: Talk) -> None:
    going.say("/system\nBe brief.\nBe kind.")
    assert going.chat.dialogue.system == "Be brief.\nBe kind."
    with pytest.raises(UsageError, match=r"^There is no command /undu\.$"):
        going.say("/undu\nand more")


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
