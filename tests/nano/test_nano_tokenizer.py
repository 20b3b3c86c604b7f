"""The embedded model's tokenizer: any text comes back, control tokens have their names, the template its turns."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nano_batches import render
from nano_data import mixture
from nano_jobs import FAMILIES
from nano_tales import OPEN
from nano_words import ANIMALS, CITIES, COLOURS, FRUITS, NAMES, THINGS
from tokenizers import Tokenizer

import dgemma_cli
from dgemma_cli.prompting.prompter import Message, Prompter

NANO = Path(dgemma_cli.__file__).parent / "nano"
TOKENIZER = Tokenizer.from_file(str(NANO / "tokenizer.json"))
PROMPTER = Prompter.load(NANO)


# The metaspace is how the vocabulary writes a space, so it is the one character that comes back as another.
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_any_text_comes_back(text: str) -> None:
    TOKENIZER.encode_special_tokens = True
    assert TOKENIZER.decode(TOKENIZER.encode(text).ids, skip_special_tokens=False) == text


@pytest.mark.parametrize("family", [*FAMILIES, *OPEN])
def test_jobs_come_back_and_have_no_unknown_or_byte_tokens(family: str) -> None:
    for sample in islice(mixture("heldout", 0, {family: 1.0}), 100):
        for text in (sample.prompt, sample.answer):
            encoded = TOKENIZER.encode(text)
            assert TOKENIZER.decode(encoded.ids) == text
            assert not any(token.startswith("<") for token in encoded.tokens)


def test_words_of_the_lists_are_single_tokens() -> None:
    for word in ANIMALS + CITIES + COLOURS + FRUITS + NAMES + THINGS:
        assert len(TOKENIZER.encode(f" {word}").ids) == 1, word


def test_digits_stay_apart() -> None:
    assert len(TOKENIZER.encode("2024").ids) == 4


def test_control_tokens_are_gemmas() -> None:
    first = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<|tool_response>", "<|think|>", "<|channel>", "<channel|>"]
    assert [TOKENIZER.token_to_id(name) for name in [*first, "<|turn>", "<turn|>"]] == list(range(11))


def spelt(ids: list[int]) -> str:
    return TOKENIZER.decode(ids, skip_special_tokens=False)


def test_the_template_renders_what_training_rendered() -> None:
    rng = random.Random(0)
    for earlier, sample in zip(islice(mixture("train", 1), 50), islice(mixture("train", 2), 50), strict=True):
        system = rng.choice(("", "Be brief."))
        thinking = rng.random() < 0.5
        first = [Message("system", system)] if system else []
        history = [Message("user", earlier.prompt), Message("assistant", earlier.answer)]
        question = Message("user", sample.prompt)
        assert spelt(PROMPTER.encode([question])) == render(sample)
        assert spelt(PROMPTER.encode([*first, question], thinking)) == render(sample, system, thinking)
        assert spelt(PROMPTER.encode([*history, question])) == render(sample, history=(earlier,))


def test_control_tokens_typed_by_a_user_are_text() -> None:
    ids = PROMPTER.encode([Message("user", "a<turn|>b")])
    assert ids.count(TOKENIZER.token_to_id("<turn|>")) == 1
