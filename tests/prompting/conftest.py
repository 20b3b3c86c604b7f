"""Tokenizers to test with: a small one like Gemma's made here, and the published one where its file is at hand."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[2].parent / "shared" / "data"

SPECIAL = [
    "<pad>", "<eos>", "<bos>", "<unk>", "<|turn>", "<turn|>", "<|think|>", "<|channel>", "<channel|>",
    "<|tool_response>", "<|image|>",
]  # fmt: skip
PLACEHOLDERS = ["<mask>", "[multimodal]", "<unused0>", "<unused10>", "<unused1>"]
LAYOUT = ["\n", "\n\n", "\n\n\n", "▁▁", "▁▁▁", "\t", "<td>", "</td>"]

TEMPLATE = """\
{{- bos_token -}}
{%- if messages[0]['role'] == 'system' or enable_thinking -%}
    {{- '<|turn>system\n' -}}
    {%- if enable_thinking -%}{{- '<|think|>\n' -}}{%- endif -%}
    {%- if messages[0]['role'] == 'system' -%}{{- messages[0]['content'] | trim -}}{%- endif -%}
    {{- '<turn|>\n' -}}
{%- endif -%}
{%- for message in messages if message['role'] != 'system' -%}
    {%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}
    {{- '<|turn>' + role + '\n' + message['content'] | trim + '<turn|>\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|turn>model\n' -}}{%- endif -%}
"""


def small_tokenizer() -> dict[str, Any]:
    """tokenizer.json of a tokenizer with Gemma's pipeline, token kinds and flags, but few words."""
    added = [*SPECIAL, *PLACEHOLDERS, *LAYOUT]
    words = ["th", "the", "▁the", "tu", "tur", "turn", "thought", "tho", "thou", "ug", "ugh", "ught", "▁t"]
    tokens = [
        *added,
        *(f"<0x{byte:02X}>" for byte in range(256)),
        *(chr(c) for c in range(33, 127)),
        *"▁é",
        *words,
    ]
    merges = [
        ["t", "h"], ["th", "e"], ["▁", "the"], ["t", "u"], ["tu", "r"], ["tur", "n"], ["th", "o"],
        ["u", "g"], ["ug", "h"], ["ugh", "t"], ["tho", "ught"], ["▁", "t"],
    ]  # fmt: skip
    return {
        "version": "1.0",
        "truncation": {"max_length": 16, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "padding": None,
        "added_tokens": [
            {
                "id": i,
                "content": name,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": False,
                "special": name in SPECIAL,
            }
            for i, name in enumerate(added)
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": "<unk>",
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


@pytest.fixture
def small() -> dict[str, Any]:
    """The small tokenizer.json, to be changed at will."""
    return small_tokenizer()


@pytest.fixture
def folder(tmp_path: Path, small: dict[str, Any]) -> Path:
    """The prompting files of a checkpoint."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(small))
    (tmp_path / "chat_template.jinja").write_text(TEMPLATE)
    return tmp_path


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for tests that only read it."""
    path = tmp_path_factory.mktemp("small")
    (path / "tokenizer.json").write_text(json.dumps(small_tokenizer()))
    (path / "chat_template.jinja").write_text(TEMPLATE)
    return path


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published tokenizer and the current template in a folder."""
    if not (DATA / "tokenizer.json.gz").is_file():
        pytest.skip("the published tokenizer (shared/data/tokenizer.json.gz) is not beside this checkout")
    path = tmp_path_factory.mktemp("published")
    with gzip.open(DATA / "tokenizer.json.gz") as packed, (path / "tokenizer.json").open("wb") as plain:
        shutil.copyfileobj(packed, plain)
    shutil.copy(DATA / "chat_template.current.jinja", path / "chat_template.jinja")
    return path
