from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted import LANGUAGE, script, spell

from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.entries import Entry, Finish, Start, Step
from dgemma_cli.terminal.json_lines import SCHEMA, read_lines, result, to_line
from dgemma_cli.terminal.narrator import Narrator

START = Start("nano", "cpu", "float32", "Say it.", None)


def entries(text: str = "Hello", thinking: str = "") -> list[Entry]:
    narrator = Narrator(LANGUAGE)
    return [START, *(narrator.tell(event) for event in script(spell(text, thinking), canvas=8, steps=2))]


def lines(found: list[Entry]) -> list[str]:
    return [to_line(entry, 0.5 * index) + "\n" for index, entry in enumerate(found)]


@given(st.text(max_size=30), st.text(max_size=10))
def test_what_is_written_is_read_again(text: str, thinking: str) -> None:
    told = entries(text, thinking)
    rounded = [json.loads(json.dumps(line)) for line in lines(told)]  # a trip through text, as through a file
    again = list(read_lines(rounded, "x.jsonl"))
    assert [time for time, _ in again] == [0.5 * index for index in range(len(told))]
    assert lines([entry for _, entry in again]) == lines(told)
    assert [entry for _, entry in again if isinstance(entry, Finish | Start)] == [told[0], told[-1]]


def test_the_schema_stands_in_the_first_line() -> None:
    first, second, *_ = (json.loads(line) for line in lines(entries()))
    assert (first["event"], first["schema"]) == ("start", SCHEMA)
    assert (second["event"], "schema" in second) == ("prompt", False)


def test_the_result_has_the_promised_keys() -> None:
    finish = entries("Hello", "hm")[-1]
    assert isinstance(finish, Finish)
    found = json.loads(result(START, finish))
    promised = (
        "text thinking prompt_tokens tokens blocks steps tokens_per_forward converged seconds tokens_per_second "
        "stop_reason seed model device dtype"
    )
    assert set(promised.split()) <= set(found)
    assert (found["text"], found["thinking"], found["model"], found["schema"]) == ("Hello", "hm", "nano", SCHEMA)


def _broken(change: Callable[[list[str]], list[str]], match: str) -> None:
    with pytest.raises(UsageError, match=match):
        list(read_lines(change(lines(entries())), "x.jsonl"))


def test_a_damaged_recording_is_named_with_its_line() -> None:
    _broken(lambda found: [], "x.jsonl is empty")
    _broken(lambda found: ["nonsense\n", *found], "line 1 is no JSON")
    _broken(lambda found: found[1:], "line 1 does not begin a recording")
    _broken(lambda found: [found[0].replace(f'"schema":{SCHEMA}', '"schema":99'), *found[1:]], "does not know")
    _broken(lambda found: [found[0], "[]\n"], "line 2 is no object")
    _broken(lambda found: [found[0], found[1].replace('"tokens":5', '"tokens":"5"')], "line 2 is damaged")
    _broken(lambda found: [found[0], found[1].replace('"tokens":5,', "")], "line 2 is damaged")
    _broken(lambda found: [found[0], found[3].replace('"accepted":"1', '"accepted":"')], "line 2 is damaged")
    _broken(lambda found: [found[0], '{"event":"dance","time":1}\n'], "line 2 is damaged")
    _broken(lambda found: [*found[:3], "{half\n", *found[3:]], "line 4 is no JSON")


def test_a_last_line_cut_short_is_left_out() -> None:
    found = lines(entries())
    assert len(list(read_lines([*found[:4], found[4][:20]], "x.jsonl"))) == 4


def test_a_hundred_steps_of_a_full_canvas_take_less_than_400_kilobytes() -> None:
    """With pieces as long as the published tokenizer's on English (4.6 characters with their space, on the mean), all
    of them changing in every step, and entropies that need all their digits.
    """
    words = [" the", " model", ",", " crystal", "lises", " out", " of", " noise"]
    assert sum(map(len, words)) / len(words) > 4.6
    length = 0
    for step in range(1, 101):
        entry = Step(
            block=0,
            step=step,
            draft=tuple(words[(step + place) % len(words)] for place in range(256)),
            accepted=(True,) * 256,
            changed=(True,) * 256,
            entropy=tuple(0.01 + (place % 100) / 100 for place in range(256)),
            thought=(False,) * 256,
            end=256,
        )
        length += len(to_line(entry, 12.3456).encode()) + 1
    assert length <= 400_000


def test_a_recording_of_the_first_schema_is_read() -> None:
    """It knew nothing of repaired and trimmed positions."""
    found = lines(entries())
    older = [
        line.replace(',"repaired":0,"trimmed":0', "").replace(f'"schema":{SCHEMA}', '"schema":1') for line in found
    ]
    assert not any("trimmed" in line for line in older)
    assert list(read_lines(older, "old.jsonl")) == list(read_lines(found, "new.jsonl"))
