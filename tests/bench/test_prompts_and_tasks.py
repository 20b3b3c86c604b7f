"""What a model is asked: shipped prompts, filled contexts, tasks and their checkers."""

from __future__ import annotations

from pathlib import Path

import nano_tasks as tool
import pytest
from nano_jobs import FAMILIES

from dgemma_cli.bench.prompts import fill, general, nano, parse_contexts, read_prompt_file
from dgemma_cli.bench.tasks import nano_tasks, read_tasks
from dgemma_cli.catalog.names import NANO_FOLDER
from dgemma_cli.errors import UsageError
from dgemma_cli.prompting.prompter import Prompter


def test_shipped_prompts_are_of_several_kinds_and_lengths() -> None:
    found = general().prompts
    assert {prompt.kind for prompt in found} == {"code", "prose", "json", "maths", "chat"}
    assert len({prompt.name for prompt in found}) == len(found)
    words = [sum(len(message.content.split()) for message in prompt.messages) for prompt in found]
    assert min(words) < 15
    assert max(words) > 400
    assert all(prompt.messages[-1].role == "user" for prompt in found)


def test_nano_is_asked_its_own_jobs() -> None:
    assert {prompt.kind for prompt in nano().prompts} >= {"chat", "prose", "json", "maths"}
    asked = {prompt.messages[0].content for prompt in nano().prompts}
    assert asked <= {task.prompt for task in nano_tasks()}
    assert not asked & {turn[0].content for turn in nano().turns}  # else an answer would stand in the context


def test_the_shipped_tasks_are_what_the_tool_writes() -> None:
    assert tool.FILE.read_text(encoding="utf-8") == tool.lines(), "run: python tools/nano_tasks.py"
    assert len(nano_tasks()) == len(FAMILIES) * tool.OF_EACH


@pytest.mark.parametrize("context", [22, 23, 60, 500, 3000])
def test_a_context_is_filled(context: int) -> None:
    prompter = Prompter.load(NANO_FOLDER)
    found = nano()
    filled = fill(found.recall, found.turns, context, prompter.encode)
    assert filled.context == context
    assert list(filled.ids) == prompter.encode(filled.messages)
    assert filled.messages[-1] == found.recall.messages[-1]
    assert context - 60 <= len(filled.ids) <= context  # a turn of one word and its answer may not fit any more
    assert all(one.role != other.role for one, other in zip(filled.messages, filled.messages[1:], strict=False))


def test_a_long_text_is_cut_to_measure() -> None:
    """To the word: what is left is less than a turn without its words."""
    prompter = Prompter.load(NANO_FOLDER)
    found = general()
    for context in (800, 2001):
        filled = fill(found.recall, found.turns, context, prompter.encode)
        assert context - 25 <= len(filled.ids) <= context


def test_a_prompt_longer_than_the_context() -> None:
    with pytest.raises(UsageError, match="alone has 22 tokens, more than the context of 21"):
        fill(nano().recall, nano().turns, 21, Prompter.load(NANO_FOLDER).encode)


def test_contexts_are_parsed() -> None:
    assert parse_contexts("1k, 4K,1000") == (1024, 4096, 1000)
    for text in ("", "1m", "0", "k", "1k,,2k", "-1"):
        with pytest.raises(UsageError, match="no number of tokens"):
            parse_contexts(text)
    with pytest.raises(UsageError, match="twice"):
        parse_contexts("1k,1024")


def test_a_prompt_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("Why?\n")
    prompt = read_prompt_file(file)
    assert (prompt.name, prompt.messages[0].content) == ("own.txt", "Why?")
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError, match="UTF-8"):
        read_prompt_file(file)
    file.write_text(" \n")
    with pytest.raises(UsageError, match="no prompt"):
        read_prompt_file(file)


def test_tasks_are_checked_to_the_letter_or_by_a_pattern(tmp_path: Path) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(
        '{"prompt": "2 + 2?", "answer": " 4\\n"}\n\n{"prompt": "a year", "pattern": "(19|20)\\\\d\\\\d."}\n'
    )
    exact, pattern = read_tasks(file)
    assert exact.check("4\n")
    assert not exact.check("4.")
    assert pattern.check("1984.")
    assert not pattern.check("It was 1984.")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("x", "line 1 is no JSON"),
        ("[]", "not an object of strings"),
        ('{"prompt": 3}', "not an object of strings"),
        ('{"answer": "4"}', "there is no prompt"),
        ('{"prompt": "2 + 2?"}', "one of answer and pattern"),
        ('{"prompt": "2 + 2?", "answer": "4", "pattern": "4"}', "one of answer and pattern"),
        ('{"prompt": "2 + 2?", "pattern": "("}', "line 1: missing"),
        ('{"prompt": "2 + 2?", "anwser": "4"}', "unknown key 'anwser'"),
        ("", "holds no task"),
    ],
)
def test_what_is_no_task(tmp_path: Path, line: str, told: str) -> None:
    file = tmp_path / "tasks.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(UsageError, match=told):
        read_tasks(file)
