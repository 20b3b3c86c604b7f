"""Loops at the end of a text, and what only looks like one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dgemma_cli.sampling.repetition import looping

LEAST = 64  # a quarter of a canvas of 256


def told(text: str) -> int:
    """A token a word."""
    words = text.split()
    return looping([hash(word) for word in words], LEAST)


@pytest.mark.parametrize(
    ("text", "beyond_the_first_cycle"),
    [
        ("The cat sat on " + "the " * 100, 99),
        ("Yes , " + "I am sure of it . " * 20, 19 * 6),
        ("a b c d e f g h i j k l m n o p " * 5, 4 * 16),
        ("x " + "ha " * 64, 63),
    ],
)
def test_loops(text: str, beyond_the_first_cycle: int) -> None:
    assert told(text) == beyond_the_first_cycle


TABLE = "| name | age |\n" + "| - - - | - - - |\n" + "".join(f"| n{i} | {i} |\n" for i in range(40))
CODE = "def f ( x ) :\n" + "".join(f"if x == {i} : return {i * i}\n" for i in range(30))
MATRIX = "[ " + "[ 0 , 0 , 0 , 0 , 0 , 0 , 0 , 0 ] , " * 8 + "]"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ha",
        "ha " * 63,
        "He laughed : " + "ha " * 70 + "! Then he left .",
        TABLE,
        CODE,
        MATRIX,
        "- " * 80 + "\nTitle",
        "\n".join(f"{i} . the same beginning and an end of its own {i}" for i in range(50)),
        " ".join(f"{i} , 0 , 0 ," for i in range(60)),
        "1 2 3 4 5 6 7 8 9 10 " * 3,
        "a verse of thirty three tokens " + " ".join(map(str, range(28))) + "\n",
    ],
)
def test_no_loops(text: str) -> None:
    assert told(text) == 0


@given(
    st.lists(st.integers(0, 5), max_size=20),
    st.lists(st.integers(0, 5), min_size=1, max_size=8),
    st.integers(1, 12),
    st.integers(1, 40),
)
def test_what_is_left_is_a_cycle_and_what_is_cut_repeats_it(
    before: list[int], cycle: list[int], rounds: int, least: int
) -> None:
    ids = before + cycle * rounds
    cut = looping(ids, least)
    if rounds >= 4 and len(cycle) * rounds >= least:
        assert cut
    if cut:
        left = ids[: len(ids) - cut]
        for length in range(1, len(left) + 1):
            if all(ids[i] == ids[i - length] for i in range(len(left), len(ids))):
                assert cut + length >= max(least, 4 * length)
                break
        else:
            raise AssertionError("what was cut repeats nothing")


@given(st.lists(st.integers(0, 999), unique=True, max_size=300))
def test_text_without_a_repeated_token_is_left_alone(ids: list[int]) -> None:
    assert looping(ids, 1) == 0
