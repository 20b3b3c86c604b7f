"""Open-ended tales and poems: a grammar that draws them, and a parser that tells a sound one from any other text.

A text is made of lines, each drawn from a few wordings; slots in braces are drawn once and then said again, in the same
form or in another that follows from them (one fruit less, the month after). So a text is sound if its words are in the
grammar and agree over its whole length, and thousands of texts are a right answer to one prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any, TypeAlias

from nano_sample import Draw, Sample
from nano_words import ANIMALS, CITIES, COLOURS, DAYS, MONTHS, NAMES, UNITS

MOODS = ("young", "small", "tiny", "big", "happy", "sad")

# What a slot may be.
POOLS: dict[str, tuple[str, ...]] = {
    "name": tuple(NAMES),
    "hero": tuple(f"{mood} {animal}" for animal in ANIMALS for mood in MOODS),
    "animal": tuple(ANIMALS),
    "city": tuple(CITIES),
    "town": tuple(CITIES),
    "colour": tuple(COLOURS),
    "thing": ("book", "box", "cup", "hat", "key", "lamp", "letter", "map", "mirror", "stone"),
    "place": ("boat", "bridge", "chair", "door", "garden", "house", "river", "table"),
    "where": ("by", "near", "behind"),
    "fruit": ("fig", "grape", "lemon", "mango", "melon", "pear", "plum"),
    "number": tuple(UNITS[3:13]),
    "month": tuple(MONTHS),
    "time": ("morning", "evening", "night", *DAYS),
}


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def _noun(hero: str) -> str:
    return hero.split()[-1]


def _same(word: str) -> str:
    return word


# How a slot is said: what is drawn for it, and the form that follows.
FORMS: dict[str, tuple[str, Callable[[str], str]]] = {pool: (pool, _same) for pool in POOLS} | {
    "a_hero": ("hero", _a),
    "The_hero": ("hero", lambda hero: f"The {hero}"),
    "an_animal": ("animal", _a),
    "An_animal": ("animal", lambda animal: _a(animal).capitalize()),
    "fewer": ("number", lambda number: UNITS[UNITS.index(number) - 1]),
    "month_after": ("month", lambda month: MONTHS[(MONTHS.index(month) + 1) % 12]),
}

Lines: TypeAlias = tuple[tuple[str, ...], ...]
Slots: TypeAlias = dict[str, str]

# All wordings of a line have equally many tokens, here and below: so a small model need not first find out where on the
# canvas a line ends, which it can learn, but not in an hour.
TALES: dict[str, Lines] = {
    "found": (
        ("{The_hero} and the {colour} {thing}\n\n",),
        (
            "One {time} {a_hero} saw a {colour} {thing} {where} the {place}.",
            "One {time} {a_hero} looked at a {colour} {thing} {where} the {place}.",
        ),
        (" It took the {thing} to {city}.", " It walked with the {thing} to {city}."),
        (" There it met {an_animal}.", " In {city} it met {an_animal}."),
        (" The {animal} was looking for the {thing}.", " The {animal} looked for its {colour} {thing}."),
        (
            " So it gave the {animal} the {thing}, and they were friends.",
            " So it gave the {animal} the {colour} {thing} and went back home.",
        ),
    ),
    "shared": (
        ("{name} and the {animal}\n\n",),
        ("{name} had {number} {fruit}s.", "{name} got {number} {fruit}s."),
        (" One {time} {an_animal} came to the {place}.", " One {time} {an_animal} was at the {place}."),
        (' "I am hungry," said the {animal}.', ' "I am sad," said the {animal}.'),
        (" So {name} gave it a {fruit}.", " So {name} gave it one {fruit}."),
        (" Now {name} had {fewer} {fruit}s and a friend.", " So {name} had {fewer} {fruit}s and a friend."),
    ),
    "travelled": (
        ("{name} and the {animal}\n\n",),
        ("In {month} {name} went from {city} to {town}.", "One {month} {name} came from {city} to {town}."),
        (" There was {an_animal} with a {colour} {thing}.", " There lived {an_animal} with a {colour} {thing}."),
        (' "Come with me," said {name}.', ' "Come to {city}," said {name}.'),
        (" They had {number} {fruit}s and ate one.", " They looked for {number} {fruit}s and ate one."),
        (
            " In {month_after} they came back to {city} with {fewer} {fruit}s.",
            " In {month_after} they went home to {city} with the {colour} {thing}.",
        ),
    ),
}

# Lines that rhyme, by their sound: how a poem may begin, how its first couplet ends, how its second begins and ends.
# Lines of one place have equally many tokens whatever they rhyme with.
RHYMES: dict[str, Lines] = {
    "night": (
        ("{An_animal} came home to me at night\n", "{An_animal} looked for me all the night\n"),
        ("and painted the whole of the {place} white.\n", "and gave me a small {colour} light.\n"),
        ("The {animal} and I looked for light,\n", "The {animal} was small, {colour} and white,\n"),
        ("and so it went back home in the night.", "and so it was very happy all that night."),
    ),
    "snow": (
        ("{An_animal} went home through the white snow\n", "{An_animal} told me of the snow\n"),
        ("and did not let the {thing} go.\n", "and that is all that I do know.\n"),
        ("The {animal} and I had to go,\n", "The {animal} let my small {thing} go,\n"),
        ("and put my {thing} on the snow.", "and so that is all there is to know."),
    ),
    "day": (
        ("{An_animal} came to me one {month} day\n", "{An_animal} gave me a {thing} one day\n"),
        ("and had so many things to say.\n", "and all of the {place} was so grey.\n"),
        ("I asked the {animal} to stay,\n", "The {animal} was tiny, old and grey,\n"),
        ("and on that night it went away.", "and so it came back to me one day."),
    ),
    "sea": (
        ("{An_animal} lived very near the sea\n", "{An_animal} went down to the sea\n"),
        ("and painted a small {colour} {thing} for me.\n", "and sent a short letter home to me.\n"),
        ("The {animal} had a small {colour} key,\n", "I gave the small {animal} something to see,\n"),
        ("and so the {animal} came back home with me.", "and so we live here by the sea."),
    ),
    "gold": (
        ("{An_animal} had a {thing} of gold\n", "{An_animal} once painted the whole {place} gold\n"),
        ("and it was some {number} hundred years old.\n", "and the {place} was so cold.\n"),
        ("The {animal} was not so very old,\n", "The {animal} slept in the cold,\n"),
        ("and so the whole of it is told.", "and so it gave me a {fruit} of gold."),
    ),
    "moon": (
        ("{An_animal} looked at the moon\n", "{An_animal} went to the moon\n"),
        ("and came back in the month of June.\n", "and came back home to {city} in June.\n"),
        ("The {animal} will be back here very soon,\n", "I hope to see the {animal} here soon,\n"),
        ("and walked home under the {colour} moon.", "and so it slept under the moon."),
    ),
    "town": (
        ("{An_animal} came to {city} town\n", "{An_animal} lived near the town\n"),
        ("and painted all of the {place}s brown.\n", "and painted me and all the {place} brown.\n"),
        ("The {animal} put the small {thing} down,\n", "The {animal} was big, {colour} and brown,\n"),
        ("and it was happy in the town.", "and so it went back to town."),
    ),
    "song": (
        ("{An_animal} gave me a small song\n", "{An_animal} once sent me a song\n"),
        ("about a {place} {colour} and so long.\n", "and it was about {number} hundred words long.\n"),
        ("The {animal} walked with me all day long,\n", "The {animal} looked for the {thing} so long,\n"),
        ("and in the {place} there is a song.", "and so I write it a small song."),
    ),
}


@dataclass(frozen=True, slots=True)
class Tale:
    """A text of the grammar. kind: which plot or rhymes; slots: what was drawn; no word is drawn twice."""

    kind: str
    slots: Slots
    text: str

    @property
    def content(self) -> list[Any]:
        """What was drawn, free of wording, as JSON values."""
        return [self.kind, sorted(self.slots.items())]


def _plots(poem: bool) -> dict[str, Lines]:
    if not poem:
        return TALES
    return {
        f"{first} {second}": (*RHYMES[first][:2], *RHYMES[second][2:])
        for first in RHYMES
        for second in RHYMES
        if first != second
    }


PLOTS = {False: _plots(poem=False), True: _plots(poem=True)}
_SLOT = re.compile(r"\{(\w+)\}")


def _allowed(owner: str, slots: Mapping[str, str]) -> list[str]:
    """What may still be drawn for a slot: no word that another slot has."""
    used = {word for value in slots.values() for word in value.split()}
    return [value for value in POOLS[owner] if used.isdisjoint(value.split())]


def drawn(rng: Random, *, poem: bool) -> Tale:
    """A text; every choice is uniform."""
    kind = rng.choice(list(PLOTS[poem]))
    lines = [rng.choice(wordings) for wordings in PLOTS[poem][kind]]
    slots: Slots = {}
    for name in _SLOT.findall("".join(lines)):
        owner = FORMS[name][0]
        if owner not in slots:
            slots[owner] = rng.choice(_allowed(owner, slots))
    return Tale(kind, slots, "".join(_said(line, slots) for line in lines))


def _said(line: str, slots: Mapping[str, str]) -> str:
    return _SLOT.sub(lambda slot: FORMS[slot[1]][1](slots[FORMS[slot[1]][0]]), line)


def parsed(text: str, *, poem: bool) -> Tale | None:
    """What a sound text was drawn from; None for any other text."""
    for kind, lines in PLOTS[poem].items():
        for slots in _readings(text, lines, {}):
            return Tale(kind, slots, text)
    return None


def _readings(text: str, lines: Sequence[tuple[str, ...]], slots: Slots) -> Iterator[Slots]:
    """Every way to read a text as these lines, with the slots known so far."""
    if not lines:
        if not text:
            yield slots
        return
    for wording in lines[0]:
        for rest, found in _read(text, wording, slots):
            yield from _readings(rest, lines[1:], found)


def _read(text: str, wording: str, slots: Slots) -> Iterator[tuple[str, Slots]]:
    """What is left of a text behind one line, and the slots known then; nothing where the line is another."""
    slot = _SLOT.search(wording)
    fixed = wording[: slot.start()] if slot else wording
    if not text.startswith(fixed):
        return
    text = text[len(fixed) :]
    if slot is None:
        yield text, slots
        return
    owner, form = FORMS[slot[1]]
    for value in [slots[owner]] if owner in slots else _allowed(owner, slots):
        said = form(value)
        if text.startswith(said):
            yield from _read(text[len(said) :], wording[slot.end() :], slots | {owner: value})


_TALE_ORDERS = (
    "Tell me a story",
    "Tell me a tale",
    "Write a story",
    "Write a tale",
    "Tell a story",
    "Write a short tale",
)
_POEM_ORDERS = ("Write a poem", "write a poem", "Tell me a poem", "Write a short poem", "Make a poem")


def prompt_for(rng: Random, tale: Tale, *, poem: bool) -> tuple[str, str]:
    """A prompt that a text answers, and whom it has to be about ("" for anybody)."""
    order = rng.choice(_POEM_ORDERS if poem else _TALE_ORDERS)
    if rng.random() < 0.4:
        return f"{order}.", ""
    hero = _hero(tale)
    if hero in NAMES:
        return f"{order} about {hero}.", hero
    about = hero if rng.random() < 0.3 else _noun(hero)
    return f"{order} about {_a(about)}.", about


def _hero(tale: Tale) -> str:
    """Whom a text is about: the one with a name or a mood, or the only animal there is."""
    return next(tale.slots[owner] for owner in ("name", "hero", "animal") if owner in tale.slots)


def sound(reply: str, about: str = "", *, poem: bool) -> bool:
    """Whether a reply is in the grammar, agrees with itself, and is about whom it was asked for."""
    tale = parsed(reply, poem=poem)
    if tale is None:
        return False
    return about in ("", _hero(tale), _noun(_hero(tale)))


def _sample(rng: Random, family: str) -> Sample:
    """Any sound text is a right answer; what was drawn decides the split."""
    poem = family == "poem"
    text = drawn(rng, poem=poem)
    prompt, about = prompt_for(rng, text, poem=poem)
    return Sample(family, prompt, text.text, text.content, checker=partial(sound, about=about, poem=poem))


def tale(rng: Random) -> Sample:
    return _sample(rng, "tale")


def poem(rng: Random) -> Sample:
    return _sample(rng, "poem")


# Families whose prompts have many right answers. The shipped weights do not know them yet.
OPEN: dict[str, Draw] = {"tale": tale, "poem": poem}
