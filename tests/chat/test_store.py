"""Conversations on disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dgemma_cli.chat import records
from dgemma_cli.chat.dialogue import Dialogue, Turn
from dgemma_cli.chat.records import Damaged, Header
from dgemma_cli.chat.store import Store, state_folder
from dgemma_cli.errors import DiskError, UsageError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TURNS = st.lists(st.builds(Turn, TEXT, TEXT, TEXT, st.booleans()), max_size=4)
DIALOGUES = st.builds(Dialogue, st.none() | TEXT.filter(bool), TURNS, st.none() | TEXT)

HELLO = Dialogue("S", [Turn("one", "1"), Turn("two", "2", "hm", True)], "three?")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def begin(store: Store, dialogue: Dialogue = HELLO) -> str:
    journal = store.create("nano", dialogue)
    journal.close()
    return journal.id


def file(store: Store, identifier: str) -> Path:
    return store.folder / f"{identifier}.jsonl"


@settings(max_examples=60, deadline=None)
@given(dialogue=DIALOGUES)
def test_what_is_written_is_read(dialogue: Dialogue) -> None:
    lines = records.header_line(Header("a", "b", "c"))
    lines += "".join(map(records.record_line, records.from_dialogue(dialogue, "c")))
    story = records.parse(lines.encode())
    assert (story.header, story.dialogue) == (Header("a", "b", "c"), dialogue)


@settings(max_examples=60, deadline=None)
@given(dialogue=DIALOGUES, data=st.data())
def test_a_file_cut_anywhere_gives_what_stands_before_and_says_so(dialogue: Dialogue, data: st.DataObject) -> None:
    entries = list(records.from_dialogue(dialogue, "c"))
    lines = [records.header_line(Header("a", "b", "c")), *map(records.record_line, entries)]
    whole = "".join(lines).encode()
    cut = data.draw(st.integers(0, len(whole)))
    ends = [sum(len(line.encode()) for line in lines[:count]) for count in range(1, len(lines) + 1)]
    read = sum(end <= cut for end in ends)
    if cut in ends:
        assert records.parse(whole[:cut]).records == entries[: read - 1]
        return
    with pytest.raises(Damaged) as caught:
        records.parse(whole[:cut])
    rescued = caught.value.rescued
    assert (rescued.records if rescued else None) == (entries[: read - 1] if read else None)


def test_only_the_owner_can_read(store: Store) -> None:
    before = os.umask(0)
    try:
        path = file(store, begin(store))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert store.folder.stat().st_mode & 0o777 == 0o700


def test_a_conversation_goes_on_where_it_stopped(store: Store) -> None:
    identifier = begin(store)
    journal, story, remark = store.resume(identifier[:-2])
    assert (story.dialogue, remark) == (HELLO, None)
    journal.write({"record": "undo"}, {"record": "drop", "turns": 1})
    journal.close()
    assert store.resume(identifier)[1].dialogue == Dialogue("S", [Turn("two", "2", "hm", True)])


def test_the_latest_is_the_one_changed_last(store: Store) -> None:
    with pytest.raises(UsageError, match="no conversation"):
        store.latest()
    first, second = begin(store), begin(store)
    os.utime(file(store, first), (2e9, 2e9))
    assert store.latest() == first
    os.utime(file(store, second), (2.1e9, 2.1e9))
    assert store.latest() == second


def test_names_that_fit_none_or_several(store: Store) -> None:
    first, second = begin(store), begin(store)
    assert first[:3] == second[:3]
    for name in ("nothing", "", first[:3]):
        with pytest.raises(UsageError):
            store.find(name)


def test_a_conversation_is_open_once(store: Store) -> None:
    identifier = begin(store)
    journal, _, _ = store.resume(identifier)
    with pytest.raises(UsageError, match="open in another"):
        store.resume(identifier)
    journal.close()
    store.resume(identifier)[0].close()


DAMAGE = [
    (b'{"record": "user", "text": "cut sho', "it has no end"),
    (b"\xff\xfe\n", "utf-8"),
    (b'{"record": "user"}\n', "an unknown record"),
    (b'{"record": "assistant", "text": "a", "thinking": "", "cut": 0}\n', "an unknown record"),
    (b'{"record": "drop", "turns": 9}\n', "cannot be dropped"),
    (b'["list"]\n', "an unknown record"),
    (b"\x00\x00\x00\n", "Expecting value"),
]


@pytest.mark.parametrize(("junk", "why"), DAMAGE, ids=[why for _, why in DAMAGE])
def test_a_damaged_file_is_set_aside_as_it_is_and_the_rest_goes_on(store: Store, junk: bytes, why: str) -> None:
    identifier = begin(store)
    path = file(store, identifier)
    with path.open("ab") as stream:
        stream.write(junk)
    damaged = path.read_bytes()
    (listed,) = store.all()
    assert listed.damage is not None
    assert path.read_bytes() == damaged  # a list changes nothing
    journal, story, remark = store.resume(identifier)
    assert story.dialogue == HELLO
    assert remark is not None
    assert why in remark
    aside = store.folder / f"{identifier}.damaged-1"
    assert aside.name in remark
    assert aside.read_bytes() == damaged
    assert aside.stat().st_mode & 0o777 == 0o600
    journal.write({"record": "clear"})
    journal.close()
    assert store.resume(identifier)[1].dialogue == Dialogue("S")


def test_what_was_set_aside_before_is_not_overwritten(store: Store) -> None:
    identifier = begin(store)
    for number in (1, 2):
        with file(store, identifier).open("ab") as stream:
            stream.write(b"junk %d" % number)
        store.resume(identifier)[0].close()
    asides = [(store.folder / f"{identifier}.damaged-{number}").read_bytes() for number in (1, 2)]
    assert [aside.endswith(b"junk %d" % number) for number, aside in enumerate(asides, 1)] == [True, True]


@pytest.mark.parametrize("content", [b"", b"junk\n", b'{"format": "other", "version": 1}\n'])
def test_a_file_of_which_nothing_can_be_read_is_set_aside(store: Store, content: bytes) -> None:
    identifier = begin(store)
    file(store, identifier).write_bytes(content)
    with pytest.raises(UsageError, match="Nothing of it can be read"):
        store.resume(identifier)
    assert (store.folder / f"{identifier}.damaged-1").read_bytes() == content
    assert store.all() == []


def test_a_newer_version_is_left_alone(store: Store) -> None:
    identifier = begin(store)
    path = file(store, identifier)
    path.write_bytes(path.read_bytes().replace(b'"version": 1', b'"version": 2'))
    newer = path.read_bytes()
    with pytest.raises(UsageError, match="version 2"):
        store.resume(identifier)
    assert path.read_bytes() == newer
    assert [entry.damage is not None for entry in store.all()] == [True]


def test_a_disk_that_refuses(store: Store, tmp_path: Path) -> None:
    journal = store.create("nano", HELLO)
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, journal._descriptor)
    os.close(full)
    with pytest.raises(DiskError, match="No space left"):
        journal.write({"record": "undo"})
    journal.close()
    (tmp_path / "file").touch()
    with pytest.raises(DiskError):
        Store(tmp_path / "file").create("nano", HELLO)


def test_the_state_folder_can_be_named(tmp_path: Path) -> None:
    assert state_folder({"DGEMMA_STATE_DIR": str(tmp_path)}) == tmp_path
    assert state_folder({}).name == "dgemma"
