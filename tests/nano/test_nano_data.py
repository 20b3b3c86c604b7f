"""The embedded model's jobs: answers are right, checkers can fail, and the held-out jobs are really unseen."""

from __future__ import annotations

import json
import re
from datetime import date
from itertools import islice

import pytest
from nano_data import OPEN_WEIGHTS, WEIGHTS, distinct, mixture, samples, split_of
from nano_jobs import FAMILIES
from nano_sample import Sample
from nano_tales import OPEN
from nano_talk import POEM, TALK
from nano_words import CAPITALS, MONTHS, OPPOSITES, SLIPS, in_words

MANY = 400


def drawn(family: str, split: str = "train", seed: int = 3) -> list[Sample]:
    return list(islice(samples(family, split, seed), MANY))


@pytest.mark.parametrize("family", [*FAMILIES, *OPEN])
def test_same_seed_same_samples(family: str) -> None:
    assert drawn(family) == drawn(family)
    assert drawn(family) != drawn(family, seed=4)


@pytest.mark.parametrize("family", [*FAMILIES, *OPEN])
def test_training_and_heldout_contents_are_disjoint(family: str) -> None:
    seen = {json.dumps(sample.content) for sample in drawn(family)}
    held = {json.dumps(sample.content) for sample in drawn(family, "heldout")}
    assert held
    assert not seen & held
    if family in FAMILIES:
        assert not {sample.prompt for sample in drawn(family)} & {sample.prompt for sample in drawn(family, "heldout")}


def test_the_split_looks_at_the_content_and_not_at_the_wording() -> None:
    for sample in [*islice(mixture("train", 0), 100), *islice(mixture("heldout", 0), 100)]:
        reworded = Sample(sample.family, "another wording", sample.answer, sample.content, sample.always_train)
        assert split_of(reworded) == split_of(sample)


def test_an_order_of_the_same_words_is_the_same_content() -> None:
    by_words: dict[str, set[str]] = {}
    for split in ("train", "heldout"):
        for sample in drawn("reverse", split):
            by_words.setdefault(json.dumps(sorted(sample.answer.split(", "))), set()).add(split)
    assert all(len(splits) == 1 for splits in by_words.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_enough_different_heldout_prompts(family: str) -> None:
    assert len({sample.prompt for sample in distinct(family, "heldout", 20, 1)}) == 20


@pytest.mark.parametrize("family", FAMILIES)
def test_one_prompt_has_one_answer(family: str) -> None:
    answers: dict[str, str] = {}
    for sample in drawn(family) + drawn(family, "heldout"):
        assert answers.setdefault(sample.prompt, sample.answer) == sample.answer


@pytest.mark.parametrize("family", FAMILIES)
def test_checkers_accept_the_answer_and_refuse_others(family: str) -> None:
    answers = {sample.answer: sample for sample in drawn(family)}
    for answer, sample in islice(answers.items(), 50):
        assert sample.check(f"  {answer}\n")
        assert not sample.check(answer[:-1])
        assert not sample.check(answer + " and more")
        assert not any(sample.check(other) for other in answers if other != answer)


def test_every_family_has_a_weight() -> None:
    assert WEIGHTS.keys() == FAMILIES.keys()
    assert OPEN_WEIGHTS.keys() == OPEN.keys()
    assert len(FAMILIES) >= 10


def test_among_open_poems_there_is_none_to_know_by_heart() -> None:
    def said(weights: dict[str, float]) -> set[str]:
        return {sample.answer for sample in islice(mixture("train", 0, weights), MANY) if sample.family == "talk"}

    assert POEM in said({"talk": 1.0})
    both = said({"talk": 1.0, "poem": 1.0})
    assert len(both) > 10
    assert POEM not in both


def test_every_fact_is_seen_in_training_in_some_wording() -> None:
    text = "\n".join(sample.answer for sample in islice(samples("facts", "train", 0), 4000))
    for country, city in CAPITALS.items():
        assert f"The capital of {country} is {city}." in text
        assert f"{city} is the capital of {country}." in text
    for one, other in OPPOSITES.items():
        assert f"opposite of {one} is {other}" in text
        assert f"opposite of {other} is {one}" in text


# The checks below work the answers out again, from the prompt and by other means than the generators.


def listed(prompt: str) -> list[str]:
    """The comma list of a prompt, in any of the three orders."""
    lines = [line.removesuffix(":") for line in prompt.split("\n") if "," in line]
    return lines[0].split(": ")[-1].split(", ")


def test_sorting() -> None:
    for sample in drawn("sort"):
        expected = sorted(listed(sample.prompt), key=str.casefold)
        assert re.sub(r"\d+\. ", "", sample.answer).replace("\n", ", ").split(", ") == expected


def test_reversing() -> None:
    for sample in drawn("reverse"):
        assert list(reversed(sample.answer.split(", "))) == listed(sample.prompt)


def test_counting_words_and_letters() -> None:
    for sample in drawn("count"):
        if "letters" in sample.answer:
            _, _, word, _, number, _ = sample.answer.split()
            assert word in sample.prompt
            assert int(number) == len(word)
        else:
            assert sample.answer == f"There are {len(listed(sample.prompt))} words."


def test_sums() -> None:
    for sample in drawn("sum"):
        a, sign, b = re.search(r"(\d+) ([+-]) (\d+)", sample.prompt).groups()  # type: ignore[union-attr]
        result = int(a) + int(b) if sign == "+" else int(a) - int(b)
        assert sample.answer == f"{result}, because {a} {sign} {b} = {result}."


def test_dates() -> None:
    for sample in drawn("dates"):
        year, month, day = sample.content
        moment = date(year, month, day)
        name = MONTHS[moment.month - 1]
        forms = [
            moment.isoformat(),
            f"{moment.day} {name} {moment.year}",
            f"{name} {moment.day}, {moment.year}",
        ]
        assert any(form in sample.prompt for form in forms)
        assert sample.answer in forms or all(form in sample.answer for form in forms)


def test_json_both_ways() -> None:
    for sample in drawn("to_json"):
        record = json.loads(sample.answer)
        assert record["name"] == re.search(r"[A-Z][a-z]+(?= (?:is|has|lives|likes))", sample.prompt).group()  # type: ignore[union-attr]
        assert all(str(value) in sample.prompt for value in record.values())
    for sample in drawn("from_json"):
        record = json.loads(re.search(r"\{.*\}", sample.prompt, re.DOTALL).group())  # type: ignore[union-attr]
        assert all(str(value) in sample.answer for value in record.values())


def test_misspellings_are_one_edit_away_and_of_one_word_only() -> None:
    owners: dict[str, str] = {}
    for word, slips in SLIPS.items():
        assert slips
        for slip in slips:
            assert slip[0] == word[0]
            assert slip not in SLIPS
            assert owners.setdefault(slip, word) == word
    for sample in drawn("spelling"):
        right = re.findall(r"\w+", sample.answer)
        assert sum(word not in right for word in re.findall(r"\w+", sample.prompt) if word == sample.content[0]) == 1


def test_gaps_stand_in_the_sequence() -> None:
    for sample in drawn("gap"):
        whole, hole = sample.content
        assert sample.prompt.count("___") == 1
        assert sample.answer.split(", ") == whole
        assert sample.prompt.replace("___", whole[hole]).count(sample.answer) == 1


def test_replacing() -> None:
    for sample in drawn("replace"):
        old, new, text = sample.content
        assert old in text.replace(".", "").split()
        assert sample.answer == re.sub(rf"\b{old}\b", new, text)


def test_numbers_in_words() -> None:
    assert [in_words(n) for n in (0, 13, 40, 42, 100, 115, 342, 999)] == [
        "zero",
        "thirteen",
        "forty",
        "forty-two",
        "one hundred",
        "one hundred fifteen",
        "three hundred forty-two",
        "nine hundred ninety-nine",
    ]
    assert len({in_words(n) for n in range(1000)}) == 1000


def test_tables_and_stories_keep_what_they_were_given() -> None:
    for sample in drawn("table"):
        for row in sample.content:
            assert "| " + " | ".join(row) + " |" in sample.answer.split("\n")
    for sample in drawn("story"):
        assert all(word in sample.prompt and word in sample.answer for word in sample.content)


def test_small_talk_shown_in_demonstrations_is_trained() -> None:
    seen = {sample.prompt for sample in islice(samples("talk", "train", 0), 12_000)}
    plain = {question for questions, _ in TALK for question in questions}
    assert plain <= seen
