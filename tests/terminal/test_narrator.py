from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from scripted import BEGIN_THOUGHT, END, END_THOUGHT, LANGUAGE, Reply, pieces, script, spell

from dgemma_cli.engine.events import BlockCommitted, Denoised
from dgemma_cli.terminal.entries import Block, Commit, Finish, Prompt, Step
from dgemma_cli.terminal.narrator import Language, Narrator


def told(ids: list[int], **settings: int) -> list[object]:
    narrator = Narrator(LANGUAGE)
    return [narrator.tell(event) for event in script(ids, **settings)]


@given(st.text(max_size=60), st.integers(1, 9))
def test_commits_and_the_rest_add_up_to_the_text(text: str, canvas: int) -> None:
    entries = told(spell(text), canvas=canvas)
    finish = entries[-1]
    assert isinstance(finish, Finish)
    commits = [entry for entry in entries if isinstance(entry, Commit)]
    assert "".join(commit.text for commit in commits) + finish.rest == finish.text == text


def test_entries_follow_the_events() -> None:
    kinds = [type(entry) for entry in told(spell("abc"), canvas=4, steps=2)]
    assert kinds == [Prompt, Block, Step, Step, Commit, Finish]


def test_a_step_tells_pieces_and_where_the_draft_ends() -> None:
    step = next(entry for entry in told(spell("abc"), canvas=8, steps=1) if isinstance(entry, Step))
    assert step.draft == ("a", "b", "c", "", "", "", "", "")
    assert step.end == 3


def test_thoughts_are_marked_across_blocks() -> None:
    entries = told(spell("yes", thinking="hmm"), canvas=4, steps=1)
    steps = [entry for entry in entries if isinstance(entry, Step)]
    assert steps[0].thought == (True,) * 4
    assert steps[1].thought == (True, False, False, False)
    finish = entries[-1]
    assert isinstance(finish, Finish)
    assert (finish.thinking, finish.text) == ("hmm", "yes")


def test_a_thought_that_the_prompt_began_is_marked() -> None:
    language = Language(pieces, LANGUAGE.reply, LANGUAGE.ends, BEGIN_THOUGHT, END_THOUGHT, thinking=True)
    step = Denoised(0, 1, (ord("a"), END_THOUGHT, ord("b")), (True,) * 3, (0.0,) * 3, (True,) * 3)
    entry = Narrator(language).tell(step)
    assert isinstance(entry, Step)
    assert entry.thought == (True, True, False)


def test_half_a_character_and_trailing_space_wait_for_the_next_block() -> None:
    readings = iter([Reply("", "ab \ufffd", True), Reply("", "ab 世", True)])
    language = Language(pieces, lambda _: next(readings), frozenset({END}), None, None)
    narrator = Narrator(language)
    texts = [narrator.tell(BlockCommitted(index, (1,), 1, True, 1)) for index in range(2)]
    assert [entry.text for entry in texts if isinstance(entry, Commit)] == ["ab", " 世"]


def test_text_that_a_later_reading_takes_back_stays_and_nothing_is_missing() -> None:
    readings = iter(
        [Reply("", "lost thought", True), Reply("lost thought", "", True), Reply("lost thought", "yes", True)]
    )
    language = Language(pieces, lambda _: next(readings), frozenset({END}), None, None)
    narrator = Narrator(language)
    texts = [narrator.tell(BlockCommitted(index, (1,), 1, True, 1)) for index in range(3)]
    assert [entry.text for entry in texts if isinstance(entry, Commit)] == ["lost thought", "", "\n\nyes"]
