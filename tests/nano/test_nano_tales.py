"""Tales and poems: what is drawn is sound, what breaks an agreement is not; the agreements are checked anew here."""

from __future__ import annotations

import re
from itertools import islice, pairwise
from pathlib import Path
from random import Random

import pytest
from nano_data import samples
from nano_tales import FORMS, POOLS, RHYMES, Tale, drawn, parsed, sound
from nano_words import ANIMALS, CITIES, COLOURS, FRUITS, MONTHS, NAMES, UNITS
from tokenizers import Tokenizer

import dgemma_cli

MANY = 200
NANO = Path(dgemma_cli.__file__).parent / "nano"
BOTH = pytest.mark.parametrize("poem", [False, True], ids=["tale", "poem"])


def texts(poem: bool, count: int = MANY) -> list[Tale]:
    rng = Random(5)
    return [drawn(rng, poem=poem) for _ in range(count)]


@BOTH
def test_what_is_drawn_is_read_back(poem: bool) -> None:
    for tale in texts(poem):
        assert parsed(tale.text, poem=poem) == tale


@BOTH
def test_hardly_two_are_the_same(poem: bool) -> None:
    assert len({tale.text for tale in texts(poem, 1000)}) > 980


@BOTH
def test_a_slot_that_is_said_twice_must_be_the_same(poem: bool) -> None:
    """One saying of a word replaced by another that would have done as well. (Of poems only the animal: their lines
    have keys, hats and rivers of their own.)
    """
    broken = 0
    for tale in texts(poem, MANY // 2):
        for owner, value in tale.slots.items():
            places = [place.span() for place in re.finditer(rf"\b{value}(?=s?\b)", tale.text)]
            for other in POOLS[owner][:3] if len(places) > 1 else ():
                if other in tale.slots.values() or (poem and owner != "animal"):
                    continue
                for start, end in places:
                    assert not sound(tale.text[:start] + other + tale.text[end:], poem=poem)
                    broken += 1
    assert broken > MANY


def a_tale(kind: str, has: str) -> str:
    return next(tale.text for tale in texts(False, 2000) if tale.kind == kind and has in tale.text)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("found", " It ", " She "),
        ("found", " an owl", " a owl"),
        ("found", " a blue", " an blue"),
        ("found", ", and they were friends.", "."),
        ("shared", " and a friend.", " and a friend. The end."),
        ("shared", "I am hungry", "I am happy"),
        ("travelled", "\n\n", "\n"),
        ("travelled", "In April ", "At April "),
        ("travelled", "In January they", "In February they"),
        ("shared", "had three", "had four"),
    ],
)
def test_a_broken_tale(kind: str, before: str, after: str) -> None:
    text = a_tale(kind, before)
    assert sound(text, poem=False)
    assert not sound(text.replace(before, after, 1), poem=False)


def test_every_tale_agrees_with_itself() -> None:
    """Worked out again by patterns that know nothing of the grammar."""
    for tale in texts(False):
        title, story = tale.text.split("\n\n")
        hero = title.removeprefix("The ").split(" and ")[0]
        assert hero in story
        assert set(re.findall("|".join(NAMES), tale.text)) == ({hero} if hero in NAMES else set())
        animals = set(re.findall("|".join(rf"\b{animal}\b" for animal in ANIMALS), tale.text))
        assert len(animals) == (1 if hero in NAMES else 2)
        coloured = set(re.findall(rf"({'|'.join(COLOURS)}) (\w+)", story))
        assert len(coloured) <= 1
        if tale.kind == "found":
            assert coloured == {tuple(title.split()[-2:])}
        numbers = [UNITS.index(word) for word in re.findall("|".join(rf"\b{unit}\b" for unit in UNITS[2:]), story)]
        assert len(numbers) == 2 or tale.kind != "shared"
        if len(numbers) == 2:
            assert numbers[1] == numbers[0] - 1
        months = [MONTHS.index(word) for word in re.findall("|".join(MONTHS), story)]
        if len(months) > 1:
            assert months[1] == (months[0] + 1) % 12
        cities = re.findall("|".join(CITIES), story)
        if tale.kind == "travelled":
            assert len(set(cities)) == 2
            assert len(cities) < 4 or cities[0] == cities[-1]
        fruits = re.findall("|".join(rf"\b{fruit}" for fruit in FRUITS if fruit not in COLOURS), tale.text)
        assert len(set(fruits)) <= 1


ENDINGS = {
    "night": ("night", "light", "white"),
    "snow": ("snow", "go", "know"),
    "day": ("day", "away", "say", "stay", "grey"),
    "sea": ("sea", "me", "key", "see"),
    "gold": ("gold", "cold", "old", "told"),
    "moon": ("moon", "June", "soon"),
    "town": ("town", "brown", "down"),
    "song": ("song", "long"),
}


def test_every_poem_rhymes() -> None:
    assert ENDINGS.keys() == RHYMES.keys()
    for tale in texts(True):
        ends = [line.split()[-1].rstrip(",.?") for line in tale.text.split("\n")]
        assert len(ends) == 4
        first, second = tale.kind.split()
        assert first != second
        for (one, other), sound_of in ((ends[:2], first), (ends[2:], second)):
            assert one != other
            assert {one, other} <= set(ENDINGS[sound_of])


@BOTH
def test_texts_of_one_kind_are_equally_long(poem: bool) -> None:
    tokenizer = Tokenizer.from_file(str(NANO / "tokenizer.json"))
    sizes: dict[str, set[int]] = {}
    for tale in texts(poem, 1000):
        sizes.setdefault("poem" if poem else tale.kind, set()).add(len(tokenizer.encode(tale.text).ids))
    for kind, found in sizes.items():
        assert max(found) - min(found) <= 1, (kind, found)  # "boats" is one token, "rivers" two; "August and" three


def test_a_couplet_that_does_not_rhyme_is_refused() -> None:
    lines = [tale.text.split("\n") for tale in texts(True)]
    refused = 0
    for one, other in pairwise(lines):
        mixed = "\n".join([*one[:3], other[3]])
        if other[3].split()[-1][-3:] != one[3].split()[-1][-3:]:
            refused += not sound(mixed, poem=True)
    assert refused > MANY // 2


@BOTH
def test_it_is_about_whom_it_was_asked_for(poem: bool) -> None:
    asked = 0
    for sample in islice(samples("poem" if poem else "tale", "train", 0), MANY):
        assert sample.check(sample.answer)
        about = re.search(r" about (?:an? )?(.+)\.$", sample.prompt)
        if about is None:
            assert sound(sample.answer, poem=poem)
            continue
        asked += 1
        assert about[1].split()[-1] in sample.answer
        other = "Mia" if about[1] != "Mia" else "Tom"
        assert not sound(sample.answer, other, poem=poem)
    assert MANY // 3 < asked < MANY


def test_every_form_has_a_pool() -> None:
    assert {owner for owner, _ in FORMS.values()} == POOLS.keys()
