"""Exported films: well-formed, self-contained, harmless, and true to the recording."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path

import pyte
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import LANGUAGE, script, spell

from dgemma_cli.terminal.entries import Entry, Start
from dgemma_cli.terminal.export.cast import to_cast
from dgemma_cli.terminal.export.page import to_html
from dgemma_cli.terminal.export.stage import Stage, seconds, spans
from dgemma_cli.terminal.export.svg import to_svg
from dgemma_cli.terminal.film import Film, cut
from dgemma_cli.terminal.narrator import Narrator
from dgemma_cli.terminal.palette import Palette, styled

STAGE = Stage(60, 16, Palette(color=True, unicode=True))
TEXT = "Hello, <world> & 世界 🎉.\nA second line, which is long enough to wrap around the sixty columns."
NASTY = "</script><script>alert(1)</script> \x1b]0;t\x07\x9b31m \ufffe\uffff\u202e ]]> &lt; \r\n"


def film(text: str = TEXT, prompt: str = 'Say "it".', step_seconds: float = 0.2) -> Film:
    narrator = Narrator(LANGUAGE)
    entries: list[Entry] = [Start("nano", "cpu", "float32", prompt, None)]
    entries += [narrator.tell(event) for event in script(spell(text), canvas=32, steps=4)]
    return cut([(step_seconds * index, entry) for index, entry in enumerate(entries)], 1.0, 0.0)


def test_spans_read_what_styled_writes() -> None:
    line = "a" + styled("b世", "1;32") + styled(" c", "2;4")
    assert [
        (span.text, span.column, span.cells, span.bold, span.dim, span.underline, span.color) for span in spans(line)
    ] == [
        ("a", 0, 1, False, False, False, 0),
        ("b世", 1, 3, True, False, False, 32),
        (" c", 4, 2, False, True, True, 0),
    ]


def test_the_last_shot_stays_for_a_while() -> None:
    stays = seconds(film())
    assert stays[:-1] == [shot.seconds for shot in film().shots][:-1]
    assert stays[-1] == 4.0


def svg_text(svg: str) -> list[str]:
    """The rows of text that an SVG defines."""
    root = ET.fromstring(svg)
    space = "{http://www.w3.org/2000/svg}"
    return ["".join(text.itertext()) for text in root.iter(f"{space}text")]


def test_an_svg_is_well_formed_self_contained_and_holds_the_answer() -> None:
    svg = to_svg(film(), STAGE)
    rows = svg_text(svg)
    assert "Hello, <world> & 世界 🎉." in rows
    assert any(row.startswith("A second line, which is long enough") for row in rows)
    assert (
        re.findall(
            r"(?:https?:|url\(|@import|<script|<image|href=\"(?!#))", svg.replace("http://www.w3.org/2000/svg", "")
        )
        == []
    )
    used, defined = set(re.findall(r'href="#(\w+)"', svg)), set(re.findall(r'<text id="(\w+)"', svg))
    assert used == defined
    assert svg.count("translateX") == len(film().shots) + 1


def test_an_svg_spends_the_time_on_each_shot() -> None:
    svg = to_svg(film(), STAGE)
    total = sum(seconds(film()))
    assert f"run {total:.2f}s step-end infinite" in svg
    moves = [int(pixels) for pixels in re.findall(r"%\{transform:translateX\((-?\d+)px\)", svg)]
    places = [int(pixels) for pixels in re.findall(r'<g transform="translate\((\d+)\)"', svg)]
    assert moves == [-place for place in places] == [-504 * index for index in range(len(film().shots))]
    begins = [float(share) for share in re.findall(r"([\d.]+)%\{transform", svg)]
    assert begins[0] == 0.0
    assert begins[1] == pytest.approx(100 * 0.2 / total, abs=0.001)
    assert begins == sorted(begins)


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=40), st.text(max_size=20))
def test_any_text_makes_a_well_formed_svg_and_page(text: str, prompt: str) -> None:
    made = film(text + NASTY, prompt + NASTY)
    ET.fromstring(to_svg(made, STAGE))
    page = to_html(made)
    assert page.count("<script") == 2
    assert page.count("</script") == 2
    json.loads(page_data(page))
    for found in (page, to_svg(made, STAGE)):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]", found)


def page_data(page: str) -> str:
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert match is not None
    return match[1]


def test_a_page_is_self_contained_and_holds_every_step() -> None:
    page = to_html(film())
    assert not re.search(r"https?:|//[a-z]|@import|<link|<img|fetch\(|import\(", page)
    data = json.loads(page_data(page))
    assert data["shots"][-1]["text"] == TEXT
    steps = [shot for shot in data["shots"] if "draft" in shot]
    assert [shot["step"] for shot in steps] == [1, 2, 3, 4] * 3
    assert {len(shot["draft"]) for shot in steps} == {32}
    assert steps[0]["kinds"] == "A" * 8 + "N" * 24
    assert data["command"] == 'dgemma run -m nano "Say \\"it\\"."'
    assert "{{" not in page


def test_a_cast_plays_to_the_answer_once() -> None:
    header, *events = (json.loads(line) for line in to_cast(film(), STAGE).splitlines())
    assert (header["version"], header["width"], header["height"]) == (2, 60, 16)
    times = [event[0] for event in events]
    assert times == sorted(times)
    assert times[-1] == pytest.approx(sum(shot.seconds for shot in film().shots) + 4.0)
    screen = pyte.Screen(60, 16)
    stream = pyte.Stream(screen)
    seen = set()
    for _, kind, text in events:
        assert kind == "o"
        stream.feed(text)
        seen.update(line.rstrip() for line in screen.display)
    assert any("step 3/48" in line for line in seen)
    lines = [line.rstrip() for line in screen.display if line.strip()]
    assert lines[0] == '$ dgemma run -m nano "Say \\"it\\"."'
    assert "".join(lines[1:]).replace(" ", "") == TEXT.replace("\n", "").replace(" ", "")


@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="needs Pillow")
def test_a_gif_has_a_frame_a_shot_and_ends_with_the_answer() -> None:
    from PIL import Image, ImageChops

    from dgemma_cli.terminal.export.gif import to_gif

    whole = Image.open(io.BytesIO(to_gif(film(), STAGE, None)))
    made = film()
    durations, frames = [], []
    for index in range(getattr(whole, "n_frames", 1)):
        whole.seek(index)
        durations.append(whole.info["duration"])
        frames.append(whole.convert("RGB"))
    assert sum(durations) == pytest.approx(1000 * sum(seconds(made)), abs=10 * len(durations))
    assert whole.info["loop"] == 0
    alone = Image.open(io.BytesIO(to_gif(Film(made.start, made.shots[-1:], made.finish), STAGE, None))).convert("RGB")
    last = frames[-1].crop((0, 0, alone.width, alone.height - 14))
    same = ImageChops.difference(last, alone.crop((0, 0, alone.width, alone.height - 14)))
    assert max(high for _, high in same.getextrema()) <= 24  # the palettes may differ a little
    assert ImageChops.difference(frames[0], frames[-1]).getbbox() is not None


# --- in a browser -------------------------------------------------------------------------------------------------

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


def chromium(*arguments: str) -> bytes:
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--force-prefers-reduced-motion"]
    return subprocess.run([CHROMIUM, *flags, *arguments], check=True, capture_output=True, timeout=120).stdout


@browser
def test_chromium_shows_the_answer_of_a_page(tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(to_html(film()))
    shown = chromium("--dump-dom", file.as_uri()).decode()
    text = re.search(r'<div id="text">(.*?)</div>', shown, re.DOTALL)
    assert text is not None
    assert text[1] == TEXT.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert "done" in shown


@browser
@pytest.mark.skipif(importlib.util.find_spec("PIL") is None, reason="needs Pillow")
def test_chromium_shows_the_answer_of_an_svg(tmp_path: Path) -> None:
    """With less motion asked for it shows the last shot: pixel for pixel what a film of that shot alone shows."""
    from PIL import Image, ImageChops

    made = film()
    pictures = []
    for name, one in [("whole", made), ("last", Film(made.start, made.shots[-1:], made.finish))]:
        file, picture = tmp_path / f"{name}.svg", tmp_path / f"{name}.png"
        file.write_text(to_svg(one, STAGE))
        chromium(f"--screenshot={picture}", "--window-size=560,130", file.as_uri())
        pictures.append(Image.open(picture).convert("RGB").crop((0, 0, 520, 105)))
    whole, last = pictures
    assert ImageChops.difference(whole, last).getbbox() is None
    text = whole.crop((16, 57, 520, 76))  # the answer's first row, below the command line
    assert len(text.getcolors(10_000) or []) > 10
