"""config.toml: read, changed by a line, and never left half written."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from dgemma_cli import settings
from dgemma_cli.errors import DiskError, UsageError

KEPT = """# mine
preset = "fast"  # in a hurry

[chat]
# by hand
markdown = false
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "config.toml"


def test_a_file_that_is_not_there_says_nothing(file: Path) -> None:
    assert settings.read(file) == {}


def test_where_it_lies() -> None:
    assert settings.config_file({"DGEMMA_CONFIG": "/x/y.toml"}) == Path("/x/y.toml")
    assert settings.config_file({}).name == "config.toml"


def test_change_keeps_comments_and_order(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(KEPT)
    settings.change(file, "preset", "quality")
    assert file.read_text() == KEPT.replace('"fast"', '"quality"')


def test_a_new_key_does_not_fall_into_the_last_table(file: Path) -> None:
    file.parent.mkdir()
    file.write_text(KEPT)
    settings.change(file, "steps", 7)
    assert settings.read(file) == {"steps": 7, "preset": "fast", "chat": {"markdown": False}}
    assert "# by hand" in file.read_text()


def test_a_key_of_one_command(file: Path) -> None:
    settings.change(file, "chat.stats", True)
    assert settings.read(file) == {"chat": {"stats": True}}
    settings.change(file, "chat.stats", None)
    assert settings.read(file) == {}


def test_taking_out_what_is_not_there(file: Path) -> None:
    settings.change(file, "run.steps", None)
    settings.change(file, "steps", None)
    assert settings.read(file) == {}


_KEYS = st.sampled_from(["preset", "steps", "chat.preset", "chat.stats", "run.steps", "t_min"])
_VALUES = st.one_of(st.text(), st.integers(-(2**40), 2**40), st.floats(allow_nan=False), st.booleans(), st.none())


@hypothesis_settings(deadline=None, max_examples=30)
@given(changes=st.lists(st.tuples(_KEYS, _VALUES), max_size=12))
def test_any_changes_leave_a_file_that_says_just_that(
    changes: list[tuple[str, settings.Value | None]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("config") / "config.toml"
    said: dict[str, object] = {}
    for key, value in changes:
        settings.change(file, key, value)
        said.pop(key, None)
        if value is not None:
            said[key] = value
    flat = {}
    for key, value in settings.read(file).items():
        flat |= {f"{key}.{name}": each for name, each in value.items()} if isinstance(value, dict) else {key: value}
    assert flat == said


@pytest.mark.parametrize("content", [b"preset = ", b"\xff\xfe", b"a = 1\na = 2"])
def test_what_is_no_toml_is_told_and_left_alone(file: Path, content: bytes) -> None:
    file.parent.mkdir()
    file.write_bytes(content)
    for attempt in (lambda: settings.read(file), lambda: settings.change(file, "steps", 1)):
        with pytest.raises(UsageError, match="no TOML"):
            attempt()
    assert file.read_bytes() == content


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="cannot be written"):
        settings.change(tmp_path / "file" / "config.toml", "steps", 1)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles.toml", tmp_path / "config.toml"
    real.write_text("steps = 1\n")
    link.symlink_to(real)
    settings.change(link, "steps", 2)
    assert link.is_symlink() and tomllib.loads(real.read_text()) == {"steps": 2}


def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(DiskError, match="no file"):
        settings.change(pipe, "steps", 1)
    assert pipe.is_fifo()
