from __future__ import annotations

from pathlib import Path

import pytest
from scripted import LANGUAGE, script, spell

from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.entries import Entry, Start
from dgemma_cli.terminal.film import Film, command_line, cut, load_film
from dgemma_cli.terminal.frame import draw
from dgemma_cli.terminal.json_lines import to_line
from dgemma_cli.terminal.narrator import Narrator
from dgemma_cli.terminal.palette import Palette
from dgemma_cli.terminal.replay import Player

PALETTE = Palette(color=True, unicode=True)
TEXT = "Hello, world."


def timed(step_seconds: float = 0.5, text: str = TEXT) -> list[tuple[float, Entry]]:
    narrator = Narrator(LANGUAGE)
    entries = [Start("nano", "cpu", "float32", "Say it.", None)]
    entries += [narrator.tell(event) for event in script(spell(text), canvas=8, steps=4)]
    return [(step_seconds * index, entry) for index, entry in enumerate(entries)]


def film(speed: float = 1.0, least: float = 0.0) -> Film:
    return cut(timed(), speed, least)


def test_shots_are_the_noise_the_steps_and_the_answer() -> None:
    found = film()
    assert len(found.shots) == 2 * (1 + 4) + 1
    assert [shot.scene.step.step if shot.scene.step else None for shot in found.shots] == [
        *[None, 1, 2, 3, 4] * 2,
        None,
    ]
    assert draw(found.shots[-1].scene, PALETTE, 80, 24, found.shots[-1].pace) == [TEXT]
    assert found.text == TEXT
    assert found.finish is not None


def test_shots_last_as_long_as_they_did_or_as_asked() -> None:
    recorded = [shot.seconds for shot in film().shots]
    assert recorded == [0.5, 0.5, 0.5, 0.5, 1.0, 0.5, 0.5, 0.5, 0.5, 1.0, 0.0]
    assert [shot.seconds for shot in film(speed=2.0).shots] == [seconds / 2 for seconds in recorded]
    assert [shot.seconds for shot in film(least=0.7).shots] == [max(0.7, seconds) for seconds in recorded]


def test_a_recording_cut_short_ends_with_what_was_committed() -> None:
    found = cut([entry for entry in timed() if entry[0] < 5.5], 1.0, 0.0)
    assert found.finish is None
    assert found.text == "Hello, w"


def test_a_film_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "run.jsonl"
    file.write_text("".join(to_line(entry, time) + "\n" for time, entry in timed()))
    read, made = load_film(file, 1.0, 0.0), film()
    assert [shot.seconds for shot in read.shots] == [shot.seconds for shot in made.shots]
    assert (read.start, read.finish, read.text) == (made.start, made.finish, made.text)


def test_what_is_no_recording_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        load_film(tmp_path / "none", 1.0, 0.0)
    with pytest.raises(UsageError, match="directory"):
        load_film(tmp_path, 1.0, 0.0)
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is no recording"):
        load_film(binary, 1.0, 0.0)


def test_the_command_line_is_one_quoted_line() -> None:
    start = Start("nano", "cpu", "float32", 'Say\n"hi" \\ there', None)
    assert command_line(start) == 'dgemma run -m nano "Say \\"hi\\" \\\\ there"'


# --- the player ---------------------------------------------------------------------------------------------------


def test_time_moves_the_film_on_to_its_end() -> None:
    player = Player(film())
    player.pass_time(0.4)
    assert player.place == 0
    player.pass_time(0.2)
    assert player.place == 1
    player.pass_time(1.0)
    assert player.place == 3
    player.pass_time(100.0)
    assert player.ended


def test_a_pause_holds_and_arrows_step() -> None:
    player = Player(film(), paused=True)
    player.pass_time(100.0)
    assert player.place == 0
    for key, place in [("on", 1), ("on", 2), ("back", 1), ("back", 0), ("back", 0), ("5", 5), ("last", 10), ("on", 10)]:
        player.press(key)
        assert player.place == place
    player.press("pause")
    assert not player.paused
    player.press("back")
    assert player.paused


def test_speed_keys_change_how_long_a_shot_stays() -> None:
    player = Player(film())
    player.press("faster")
    player.pass_time(0.3)
    assert player.place == 1
    player.press("slower")
    player.press("slower")
    player.press("0")
    player.pass_time(0.9)
    assert player.place == 0
    player.pass_time(0.2)
    assert player.place == 1


def test_the_end_key_and_an_empty_film_end() -> None:
    player = Player(film())
    player.press("end")
    assert player.ended
    assert Player(cut(timed()[:1], 1.0, 0.0)).ended


@pytest.mark.parametrize("rows", [1, 3, 5, 24])
def test_the_players_lines_fit(rows: int) -> None:
    lines = Player(film()).lines(PALETTE, 30, rows)
    assert len(lines) <= max(1, rows - 2)
    assert "1/11 · 1x · space" in lines[-1]
