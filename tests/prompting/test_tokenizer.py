"""Text to ids and back; control tokens apart from text; pieces that join to the text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers

from dgemma_cli.errors import CheckpointError
from dgemma_cli.prompting.tokenizer import Tokenizer

CONTROL = {
    "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>",
    "<|tool_response>", "<|image|>", "<mask>", "[multimodal]", "<unused0>", "<unused10>", "<unused1>",
}  # fmt: skip
FRAGMENTS = [*CONTROL, "<", "|", "turn", ">", "<td>", "</td>", "<unused", "[", "\n", "\n\n", "  ", " the", "é"]
mixed_text = st.lists(st.sampled_from(FRAGMENTS) | st.text(max_size=4), max_size=12).map("".join)


@pytest.fixture(scope="module")
def tokenizer(small_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(small_folder / "tokenizer.json")


def made(spec: dict[str, Any]) -> Tokenizer:
    return Tokenizer(tokenizers.Tokenizer.from_str(json.dumps(spec)))


def test_control_tokens_are_the_special_ones_and_the_placeholders(tokenizer: Tokenizer, small: dict[str, Any]) -> None:
    added = {token["content"]: token["id"] for token in small["added_tokens"]}
    assert {name: i for name, i in added.items() if tokenizer.control_id(name) == i}.keys() == CONTROL
    assert all(tokenizer.control_id(name) is None for name in added.keys() - CONTROL)


def test_half_a_pair_of_tags_is_a_placeholder(small: dict[str, Any]) -> None:
    small["added_tokens"] = [token for token in small["added_tokens"] if token["content"] != "</td>"]
    assert made(small).control_id("<td>") is not None


def test_what_is_marked_special_is_control_whatever_it_looks_like(small: dict[str, Any]) -> None:
    for token in small["added_tokens"]:
        token["special"] |= token["content"] == "<td>"
    tokenizer = made(small)
    assert tokenizer.control_id("<td>") is not None
    assert tokenizer.control_id("</td>") is None


@given(mixed_text)
def test_text_never_becomes_a_control_token_and_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text)
    assert not {tokenizer.control_id(name) for name in CONTROL} & set(ids)
    assert tokenizer.decode(ids) == text.replace("▁", " ")


def test_layout_and_markup_in_text_are_tokens(tokenizer: Tokenizer, small: dict[str, Any]) -> None:
    vocabulary = small["model"]["vocab"]
    ids = tokenizer.encode("<td>the\n\n</td>▁▁the")
    assert ids == [vocabulary[name] for name in ["<td>", "the", "\n\n", "</td>", "▁▁", "the"]]


def test_encoding_is_whole_whatever_truncation_the_file_asks_for(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("the " * 50)) == 51


def test_padding_of_the_file_is_off(small: dict[str, Any]) -> None:
    small["padding"] = {
        "strategy": {"Fixed": 32}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    assert len(made(small).encode("the")) == 1


def test_split_takes_the_first_and_longest(tokenizer: Tokenizer) -> None:
    turn, ten, one = map(tokenizer.control_id, ["<|turn>", "<unused10>", "<unused1>"])
    parts = list(tokenizer.split("<a<|turn>b<unused10><unused1>0<td><"))
    assert parts == ["<a", turn, "b", ten, one, "0<td><"]
    assert list(tokenizer.split("")) == []


def test_split_prefers_the_longer_of_two_at_one_place(small: dict[str, Any]) -> None:
    small["added_tokens"][3]["content"] = "<|turn>>"
    small["model"]["vocab"]["<|turn>>"] = small["model"]["vocab"].pop("<unk>")
    small["model"]["unk_token"] = None
    assert list(made(small).split("<|turn>><|turn>")) == [3, 4]


def test_nothing_is_added_at_the_ends(small: dict[str, Any]) -> None:
    bos = {"id": "<bos>", "ids": [2], "tokens": ["<bos>"]}
    small["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<bos>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<bos>": bos},
    }
    assert made(small).encode("the") == [small["model"]["vocab"]["the"]]


def test_decode_leaves_out_control_and_unknown_ids(tokenizer: Tokenizer) -> None:
    the, mask = tokenizer.encode("the"), tokenizer.control_id("<mask>")
    assert mask is not None
    assert tokenizer.decode([mask, *the, 99_999, *the, mask]) == "thethe"
    assert tokenizer.pieces([mask, *the, 99_999, *the, mask]) == ["", "the", "", "the", ""]


def byte_ids(small: dict[str, Any], *values: int) -> list[int]:
    return [small["model"]["vocab"][f"<0x{value:02X}>"] for value in values]


def test_the_last_byte_carries_the_character(tokenizer: Tokenizer, small: dict[str, Any]) -> None:
    euro = byte_ids(small, 0xE2, 0x82, 0xAC)
    assert tokenizer.pieces([*tokenizer.encode("the"), *euro, *euro, *tokenizer.encode(" t")]) == [
        "the", "", "", "€", "", "", "€", " t",
    ]  # fmt: skip
    image = tokenizer.control_id("<|image|>")
    assert image is not None
    assert tokenizer.pieces([euro[0], image, *euro[1:]]) == ["", "", "", "€"]
    assert tokenizer.pieces([euro[0], 99_999, *euro[1:]]) == ["", "", "", "€"]


def test_bytes_that_are_no_character(tokenizer: Tokenizer, small: dict[str, Any]) -> None:
    assert tokenizer.pieces(byte_ids(small, 0xE2, 0x82)) == ["\ufffd", "\ufffd"]
    assert tokenizer.pieces(byte_ids(small, 0xFF)) == ["\ufffd"]
    assert tokenizer.pieces([]) == []


@given(st.lists(st.integers(0, 420), max_size=30) | st.lists(st.integers(24, 279), max_size=12))
def test_pieces_join_to_the_text(tokenizer: Tokenizer, ids: list[int]) -> None:
    pieces = tokenizer.pieces(ids)
    assert len(pieces) == len(ids)
    assert "".join(pieces) == tokenizer.decode(ids)


@pytest.fixture(scope="module")
def byte_level() -> Tokenizer:
    names = ["<bos>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    inner = tokenizers.Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(["<bos>"])
    return Tokenizer(inner)


@given(st.data())
def test_pieces_of_a_byte_level_tokenizer(byte_level: Tokenizer, data: st.DataObject) -> None:
    text = data.draw(st.text(max_size=8))
    ids = byte_level.encode(text)
    assert [piece for piece in byte_level.pieces(ids) if piece] == list(text)
    ids = data.draw(st.lists(st.integers(0, 256), max_size=12))
    assert "".join(byte_level.pieces(ids)) == byte_level.decode(ids)


def test_merges_that_make_a_control_token_are_told(small: dict[str, Any]) -> None:
    small["model"]["vocab"] |= {"<m": 900, "as": 901, "k>": 902, "<mas": 903}
    small["model"]["merges"] += [["<", "m"], ["a", "s"], ["k", ">"], ["<m", "as"], ["<mas", "k>"]]
    tokenizer = made(small)
    assert tokenizer.encode("<mas")
    with pytest.raises(CheckpointError, match="control token '<mask>'"):
        tokenizer.encode("a <mask> b")


def test_a_character_outside_the_vocabulary_may_be_unknown(small: dict[str, Any]) -> None:
    small["model"]["byte_fallback"] = False
    tokenizer = made(small)
    assert tokenizer.encode("€") == [tokenizer.control_id("<unk>")]


@pytest.mark.parametrize("flag", ["lstrip", "rstrip", "single_word"])
def test_control_tokens_of_unknown_kind_are_refused(small: dict[str, Any], flag: str) -> None:
    small["added_tokens"][4][flag] = True
    with pytest.raises(CheckpointError, match=r"'<\|turn>' is of an unknown kind"):
        made(small)


def test_a_control_token_of_one_character_is_refused(small: dict[str, Any]) -> None:
    small["added_tokens"].append(small["added_tokens"][4] | {"id": small["model"]["vocab"]["a"], "content": "a"})
    with pytest.raises(CheckpointError, match="'a' is of an unknown kind"):
        made(small)


def test_what_is_no_chat_tokenizer_is_refused(small: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError, match="no decoder"):
        made(small | {"decoder": None})
    with pytest.raises(CheckpointError, match="no control tokens"):
        made(small | {"added_tokens": []})


def test_missing_and_corrupt_files(folder: Path) -> None:
    path = folder / "tokenizer.json"
    whole = path.read_bytes()
    for damaged in (whole[:-100], b"", b"{}", b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"tokenizer\.json is no tokenizer") as caught:
            Tokenizer.from_file(path)
        assert "\n" not in caught.value.message
        assert caught.value.hint
    path.unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json"):
        Tokenizer.from_file(path)
