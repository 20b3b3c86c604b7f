"""The job families of the embedded model: each draws one job and tells its question and its one right answer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import TypeAlias

from nano_sample import Draw, Sample
from nano_talk import beyond, talk
from nano_words import (
    ANIMALS,
    CAPITALS,
    CITIES,
    COLOURS,
    COUNTRIES,
    DAYS,
    FRUITS,
    KINDS,
    MONTHS,
    NAMES,
    OPPOSITES,
    PLANETS,
    SLIPS,
    SOUNDS,
    SPELT,
    THINGS,
    in_words,
)


def _given(rng: Random, material: str, orders: Sequence[str]) -> str:
    """An order about some material: before it, behind it on lines of its own, or in one line ("order: material")."""
    order = rng.choice(orders)
    return rng.choice(
        (f"{order}: {material}", f"{order}: {material}", f"{material}\n\n{order}:", f"{order}:\n{material}")
    )


def _some_words(rng: Random, least: int = 3, most: int = 5) -> list[str]:
    pool = rng.choice((CITIES, CITIES, NAMES, ANIMALS, FRUITS, COLOURS, THINGS))
    return rng.sample(pool, rng.randint(least, most))


def _a(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


_CAPITAL_QUESTIONS = (
    "What is the capital of {}?",
    "Name the capital of {}.",
    "Which city is the capital of {}?",
    "Tell me the capital of {}.",
    "What's the capital of {}?",
)
_COUNTRY_QUESTIONS = (
    "Which country has the capital {}?",
    "{} is the capital of which country?",
    "Name the country with the capital {}.",
    "What country is {} the capital of?",
)
_OPPOSITE_QUESTIONS = (
    "What is the opposite of {}?",
    "Name the opposite of {}.",
    "Give the opposite of {}.",
    "Tell me the opposite of {}.",
)
_SOUND_QUESTIONS = (
    "What sound does a {} make?",
    "What does a {} do?",
    "Which sound does the {} make?",
    "Tell me what a {} does.",
)


def facts(rng: Random) -> Sample:
    kind = rng.choices(("capital", "country", "opposite", "sound"), (4, 3, 2, 1))[0]
    if kind == "capital":
        known = rng.choice(COUNTRIES)
        question = rng.choice(_CAPITAL_QUESTIONS)
        answer = f"The capital of {known} is {CAPITALS[known]}."
    elif kind == "country":
        country = rng.choice(COUNTRIES)
        known = CAPITALS[country]
        question = rng.choice(_COUNTRY_QUESTIONS)
        answer = f"{known} is the capital of {country}."
    elif kind == "opposite":
        pair = rng.choice(list(OPPOSITES.items()))
        known, other = pair if rng.random() < 0.5 else pair[::-1]
        question = rng.choice(_OPPOSITE_QUESTIONS)
        answer = f"The opposite of {known} is {other}."
    else:
        known = rng.choice(list(SOUNDS))
        question = rng.choice(_SOUND_QUESTIONS)
        answer = f"{_a(known).capitalize()} {SOUNDS[known]}."
    prompt = question.format(known)
    return Sample("facts", prompt, answer, [question, known], prompt == "What is the capital of France?")


_SORT_ORDERS = ("Sort these words", "Sort these words alphabetically", "Sort", "Put these words in alphabetical order")


def sort(rng: Random) -> Sample:
    words = _some_words(rng)
    ordered = sorted(words)
    if rng.random() < 0.25:
        prompt = _given(rng, ", ".join(words), ("Sort these words as a numbered list", "Sort as a numbered list"))
        answer = "\n".join(f"{i}. {word}" for i, word in enumerate(ordered, 1))
    else:
        prompt = _given(rng, ", ".join(words), _SORT_ORDERS)
        answer = ", ".join(ordered)
    return Sample("sort", prompt, answer, ordered)


def reverse(rng: Random) -> Sample:
    words = _some_words(rng)
    prompt = _given(
        rng,
        ", ".join(words),
        ("Reverse the order of these words", "Reverse these words", "Write these words backwards"),
    )
    return Sample("reverse", prompt, ", ".join(words[::-1]), sorted(words))


_LETTER_QUESTIONS = (
    "How many letters does the word {} have?",
    "How many letters are in {}?",
    "Count the letters of {}.",
    "Tell me how many letters {} has.",
)


def count(rng: Random) -> Sample:
    if rng.random() < 0.35:
        word = rng.choice(ANIMALS + FRUITS + COLOURS + THINGS)
        question = rng.choice(_LETTER_QUESTIONS)
        return Sample("count", question.format(word), f"The word {word} has {len(word)} letters.", [question, word])
    words = _some_words(rng, 2, 7)
    prompt = _given(rng, ", ".join(words), ("Count these words", "How many words are these", "Count the words"))
    return Sample("count", prompt, f"There are {len(words)} words.", sorted(words))


def sum_(rng: Random) -> Sample:
    a, b = rng.randint(10, 59), rng.randint(1, 9)
    if rng.random() < 0.5:
        term, result, content = f"{a} + {b}", a + b, ["+", a, b]
    else:
        term, result, content = f"{a} - {b}", a - b, ["-", a, b]
    question = rng.choice(("What is {}?", "Calculate {}.", "{} = ?", "How much is {}?")).format(term)
    return Sample("sum", question, f"{result}, because {term} = {result}.", content)


def number_words(rng: Random) -> Sample:
    number = rng.randint(0, 99) if rng.random() < 0.4 else rng.randint(0, 999)
    if rng.random() < 0.5:
        order = rng.choice(("Write {} in words.", "Spell out the number {}.", "What is {} in words?"))
        return Sample("number_words", order.format(number), in_words(number), number)
    order = rng.choice(("Write {} in digits.", "Write {} as a number.", "What is {} in digits?"))
    return Sample("number_words", order.format(in_words(number)), str(number), number)


def counting(rng: Random) -> Sample:
    low = rng.randint(1, 15)
    high = rng.randint(low + 3, 20)
    numbers = list(range(low, high + 1))
    down = rng.random() < 0.4
    if down:
        numbers.reverse()
    order = rng.choice(
        ("Count{} from {} to {} in words.", "Count{} in words from {} to {}.", "Please count{} from {} to {} in words.")
    )
    prompt = order.format(" down" if down else "", numbers[0], numbers[-1])
    return Sample("counting", prompt, ", ".join(map(in_words, numbers)), [low, high])


def _date(year: int, month: int, day: int) -> dict[str, str]:
    name = MONTHS[month - 1]
    return {
        "ISO": f"{year}-{month:02}-{day:02}",
        "long": f"{day} {name} {year}",
        "American": f"{name} {day}, {year}",
    }


def dates(rng: Random) -> Sample:
    year, month, day = rng.randint(2000, 2029), rng.randint(1, 12), rng.randint(1, 28)
    forms = _date(year, month, day)
    source = rng.choice(list(forms))
    content = [year, month, day]
    if rng.random() < 0.3:
        prompt = _given(rng, forms[source], ("Write this date in all forms", "Write this date in every form"))
        return Sample("dates", prompt, "\n".join(f"{form}: {text}" for form, text in forms.items()), content)
    target = rng.choice([form for form in forms if form != source])
    orders = (f"Write this date in the {target} form", f"Convert this date to the {target} form")
    return Sample("dates", _given(rng, forms[source], orders), forms[target], content)


Record: TypeAlias = dict[str, str | int]


def _record(rng: Random) -> Record:
    fields: Record = {
        "age": rng.randint(5, 89),
        "city": rng.choice(CITIES),
        "pet": rng.choice(ANIMALS),
        "likes": rng.choice(COLOURS),
    }
    kept = set(rng.sample(list(fields), rng.randint(2, 4)))
    return {"name": rng.choice(NAMES)} | {key: value for key, value in fields.items() if key in kept}


def _sentence(record: Record) -> str:
    clauses = {
        "age": f"is {record.get('age')} years old",
        "city": f"lives in {record.get('city')}",
        "pet": f"has {_a(str(record.get('pet')))}",
        "likes": f"likes {record.get('likes')}",
    }
    said = [clauses[key] for key in record if key != "name"]
    return f"{record['name']} {', '.join(said[:-1])} and {said[-1]}."


def to_json(rng: Random) -> Sample:
    record = _record(rng)
    prompt = _given(rng, _sentence(record), ("Write this as JSON", "Turn this into JSON", "Convert to JSON"))
    return Sample("to_json", prompt, json.dumps(record, indent=2), list(record.values()))


def from_json(rng: Random) -> Sample:
    record = _record(rng)
    prompt = _given(rng, json.dumps(record, indent=2), ("Write this JSON as a sentence", "Put this JSON into words"))
    return Sample("from_json", prompt, _sentence(record), list(record.values()))


def _scene(rng: Random) -> list[str]:
    """The words of a sentence about everyday things; articles fit whatever word stands behind them."""
    name, other = rng.sample(NAMES, 2)
    animal, second = rng.sample(ANIMALS, 2)
    thing, further = rng.sample(THINGS, 2)
    fruit, colour = rng.choice(FRUITS), rng.choice(COLOURS)
    return rng.choice(
        (
            f"The {colour} {animal} sleeps under the {thing} .",
            f"{name} and {other} see the {animal} near the {thing} .",
            f"{name} gave the {fruit} to the {animal} and went home .",
            f"The {animal} and the {second} live behind the {colour} {thing} .",
            f"Today {name} painted the {thing} {colour} and the {further} white .",
            f"My {thing} is {colour} but the {animal} likes the {further} .",
        )
    ).split()


def _joined(words: Sequence[str]) -> str:
    return " ".join(words).replace(" .", ".")


def spelling(rng: Random) -> Sample:
    words = _scene(rng)
    places = [i for i, word in enumerate(words) if word in SPELT]
    if not places:
        return spelling(rng)
    place = rng.choice(places)
    slip = rng.choice(SLIPS[words[place]])
    wrong = [*words[:place], slip, *words[place + 1 :]]
    prompt = _given(rng, _joined(wrong), ("Correct the spelling", "Fix the spelling", "Correct this sentence"))
    return Sample("spelling", prompt, _joined(words), [slip, _joined(words)])


def _sequence(rng: Random) -> list[str]:
    """Days, months, planets or numbers in their order, four to six of them."""
    length = rng.randint(4, 6)
    kind = rng.choices(("days", "months", "planets", "numbers", "words"), (2, 2, 1, 5, 3))[0]
    if kind in ("days", "months"):
        circle = DAYS if kind == "days" else MONTHS
        start = rng.randrange(len(circle))
        return [circle[(start + i) % len(circle)] for i in range(length)]
    if kind == "planets":
        start = rng.randint(0, len(PLANETS) - length)
        return PLANETS[start : start + length]
    if kind == "numbers":
        step = rng.choice((1, 2, 5, 10))
        start = step * rng.randint(1, 4)
        return [str(start + i * step) for i in range(length)]
    start = rng.randint(1, 14)
    return [in_words(start + i) for i in range(length)]


def gap(rng: Random) -> Sample:
    whole = _sequence(rng)
    hole = rng.randrange(1, len(whole))
    holed = [*whole[:hole], "___", *whole[hole + 1 :]]
    prompt = _given(rng, ", ".join(holed), ("Fill in the gap", "Fill the gap", "What is missing"))
    return Sample("gap", prompt, ", ".join(whole), [whole, hole])


def list_(rng: Random) -> Sample:
    kind = rng.choice(list(KINDS))
    items = KINDS[kind][: rng.randint(2, 7)]
    form = rng.choice(("bullets", "numbers", "commas"))
    order = rng.choice(("List {} {}", "Name {} {}", "Give me {} {}")).format(len(items), kind)
    if form == "bullets":
        return Sample("list", f"{order}.", "\n".join(f"- {item}" for item in items), [kind, len(items), form])
    if form == "numbers":
        answer = "\n".join(f"{i}. {item}" for i, item in enumerate(items, 1))
        return Sample("list", f"{order} as a numbered list.", answer, [kind, len(items), form])
    return Sample("list", f"{order} in one line.", ", ".join(items), [kind, len(items), form])


def replace(rng: Random) -> Sample:
    words = _scene(rng) + (_scene(rng) if rng.random() < 0.2 else [])
    pools = [pool for pool in (ANIMALS, THINGS, COLOURS, NAMES, FRUITS) if any(word in pool for word in words)]
    pool = rng.choice(pools)
    old = rng.choice([word for word in words if word in pool])
    new = rng.choice([word for word in pool if word not in words])
    text = _joined(words)
    changed = _joined([new if word == old else word for word in words])
    prompt = _given(rng, text, (f"Replace {old} with {new}", f"Write {new} instead of {old}"))
    return Sample("replace", prompt, changed, [old, new, text])


def table(rng: Random) -> Sample:
    rows = [(name, str(rng.randint(5, 89)), rng.choice(CITIES)) for name in rng.sample(NAMES, rng.randint(2, 3))]
    lines = ["| Name | Age | City |", "| --- | --- | --- |", *("| " + " | ".join(row) + " |" for row in rows)]
    material = "; ".join(", ".join(row) for row in rows)
    prompt = _given(rng, material, ("Make a table", "Write a table", "Make a table of these people"))
    return Sample("table", prompt, "\n".join(lines), sorted(rows))


def story(rng: Random) -> Sample:
    name, animal, fruit, city = rng.choice(NAMES), rng.choice(ANIMALS), rng.choice(FRUITS), rng.choice(CITIES)
    order = rng.choice(
        (
            "Tell me a story about {name}, {an_animal} and {a_fruit} in {city}.",
            "Write a short story about {name}, {an_animal} and {a_fruit} in {city}.",
            "Write a story with {name}, {an_animal}, {a_fruit} and the city {city}.",
        )
    )
    answer = (
        f"{name} lived in {city}. One morning {name} met a small {animal} by the river. "
        f"The {animal} was hungry, so {name} gave it {_a(fruit)}. "
        f"They walked through {city} together and talked until the evening. "
        f"When {name} went home, the {animal} came too and slept under the table. "
        f"The next day they ate another {fruit} and looked at the boats on the river. "
        f"From that day on {name} and the {animal} were the best of friends."
    )
    prompt = order.format(name=name, an_animal=_a(animal), a_fruit=_a(fruit), city=city)
    return Sample("story", prompt, answer, [name, animal, fruit, city])


FAMILIES: dict[str, Draw] = {
    "facts": facts,
    "sort": sort,
    "reverse": reverse,
    "count": count,
    "sum": sum_,
    "number_words": number_words,
    "counting": counting,
    "dates": dates,
    "to_json": to_json,
    "from_json": from_json,
    "spelling": spelling,
    "gap": gap,
    "list": list_,
    "replace": replace,
    "table": table,
    "story": story,
    "talk": talk,
    "beyond": beyond,
}
