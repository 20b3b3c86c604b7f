"""Answers in a chat: whole, cancelled, too large, thought about; and what is kept of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted import script, spell
from talk import Talk, kept, shown, talk

from dgemma_cli.engine.events import BlockCommitted, Event
from dgemma_cli.errors import DgemmaError, OutOfMemory, UsageError
from dgemma_cli.terminal.cancel import Cancelled


def test_answers_go_out_and_into_the_history(going: Talk) -> None:
    going.say("How are you?")
    going.model.messages.clear()
    going.say("And you?")
    assert going.printed() == "Fine.\nFine.\n"
    assert shown(going) == [("user", "How are you?"), ("assistant", "Fine."), ("user", "And you?")]
    assert kept(going) == going.turns == [("How are you?", "Fine."), ("And you?", "Fine.")]


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
