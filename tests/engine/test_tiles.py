"""Tiles that were measured on a card are worked in there, with the code and the versions they were measured with."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import pytest
import tiny
import torch
from tape import Tape

from dgemma_cli.engine import keys, remembered, tiles, trust
from dgemma_cli.engine.comparison import Comparison
from dgemma_cli.engine.tiles import remember_tiles, settle_tiles, tiles_in_use
from dgemma_cli.engine.trust import proven
from dgemma_cli.kernels import cuts
from dgemma_cli.kernels.plain import PlainOperations
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.kernel_uses import Use

USUAL, OTHER, THIRD = (128, 32, 4, 3), (64, 32, 4, 4), (64, 64, 4, 3)
DOWN = Use("down nvfp4 64x32 by 16", "down", (USUAL, OTHER, THIRD), ())
HEAD = Use("dense int8 96x64 by 16", "dense", (USUAL, OTHER), ())
CPU = torch.device("cpu")
MEASURED = ", {} of 2 tiles measured on this card"


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where tiles are remembered; and models that have uses of them."""
    monkeypatch.setattr(platformdirs, "user_cache_path", lambda name: tmp_path / name)
    monkeypatch.setattr(tiles, "uses_of", lambda model: [DOWN, HEAD])
    monkeypatch.setattr(cuts, "_settled", {})
    return tmp_path / "dgemma" / "tiles.json"


def fused() -> FusedModel:
    return FusedModel(tiny.random_model(), PlainOperations(), Tape(), chunk=16)


def loaded() -> FusedModel:
    """As in a process of its own."""
    cuts._settled.clear()
    model = fused()
    settle_tiles(model)
    return model


def test_what_is_remembered_is_worked_in_at_the_next_load(file: Path) -> None:
    assert loaded().kernels == "torch reference, a tape"
    assert remember_tiles(CPU, {DOWN.name: OTHER})
    model = loaded()
    assert tiles_in_use(model) == {DOWN.name: OTHER}
    assert cuts.cut_of(DOWN.name, CPU) == OTHER
    assert model.kernels == "torch reference, a tape" + MEASURED.format(1)
    # Of another model, or anew: what is known of other uses stays.
    assert remember_tiles(CPU, {HEAD.name: USUAL, DOWN.name: THIRD, "another": USUAL})
    assert loaded().kernels.endswith(MEASURED.format(2))
    assert cuts._settled == {CPU: {DOWN.name: THIRD, HEAD.name: USUAL}}
    assert set(json.loads(file.read_text())[tiles._key(CPU)]["tiles"]) == {DOWN.name, HEAD.name, "another"}


@pytest.mark.parametrize("what", ["card", "code", "versions"])
def test_tiles_of_another_card_or_of_other_code_are_not_used(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    remember_tiles(CPU, {DOWN.name: OTHER})
    if what == "card":
        monkeypatch.setattr(tiles, "card", lambda device: ("another",))
        monkeypatch.setattr(keys, "card", lambda device: ("another",))
    elif what == "code":
        monkeypatch.setattr(tiles, "_CODE", ("model",))
    else:
        monkeypatch.setattr(keys, "triton_version", lambda: "3.99")
    model = loaded()
    assert tiles_in_use(model) == {}
    told = ", no tiles measured: those of this card are of other versions"
    assert model.kernels.endswith(told) == (what != "card")


@pytest.mark.parametrize(
    "tile", [[1, 2, 3], [128.5, 32, 4, 3], "x", None, [[64], 32, 4, 4], [64, 32, 4, 40], {"rows": 64}]
)
def test_a_tile_that_nobody_would_try_is_not_used(file: Path, tile: object) -> None:
    remember_tiles(CPU, {})
    key = tiles._key(CPU)
    file.write_text(json.dumps({key: {"tiles": {DOWN.name: tile, HEAD.name: [64.0, 32, 4, 4]}}}))
    found = tiles_in_use(loaded())
    assert found == {HEAD.name: OTHER}
    assert all(isinstance(number, int) for number in found[HEAD.name])


@pytest.mark.parametrize("content", ["", "[1]", "\xff", '{"KEY": 3}', '{"KEY": {"tiles": [1]}}', '{"a": null}'])
def test_a_broken_file_leaves_the_usual_tiles(file: Path, content: str) -> None:
    file.parent.mkdir()
    file.write_text(content.replace("KEY", tiles._key(CPU)), encoding="latin-1")
    assert tiles_in_use(loaded()) == {}
    assert remember_tiles(CPU, {DOWN.name: OTHER})
    assert tiles_in_use(loaded()) == {DOWN.name: OTHER}


def test_a_model_keeps_its_tiles_when_another_one_is_loaded() -> None:
    remember_tiles(CPU, {DOWN.name: OTHER})
    first = loaded()
    remember_tiles(CPU, {DOWN.name: THIRD, HEAD.name: OTHER})
    settle_tiles(fused())
    assert tiles_in_use(first) == {DOWN.name: OTHER, HEAD.name: OTHER}


def test_kernels_are_compared_again_in_other_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[dict[str, object]] = []

    def compare(model: FusedModel) -> Comparison:
        compared.append(dict(tiles_in_use(model)))
        return Comparison(0.01, None)

    monkeypatch.setattr(trust, "compare", compare)

    def load() -> str:
        cuts._settled.clear()
        return proven(fused()).kernels

    load()
    load()
    assert compared == [{}]
    remember_tiles(CPU, {DOWN.name: OTHER, HEAD.name: USUAL})
    assert load() == load() == "torch reference, a tape" + MEASURED.format(2) + ", 1.0% from plain torch"
    remember_tiles(CPU, {DOWN.name: THIRD})
    load()
    load()
    assert compared == [{}, {DOWN.name: OTHER, HEAD.name: USUAL}, {DOWN.name: THIRD, HEAD.name: USUAL}]


@pytest.mark.parametrize("raises", [False, True])
def test_tiles_that_are_wrong_in_a_model_are_forgotten(
    file: Path, monkeypatch: pytest.MonkeyPatch, raises: bool
) -> None:
    """And the model stays on its kernels, in the usual tiles."""

    def compare(model: FusedModel) -> Comparison:
        if not tiles_in_use(model):
            return Comparison(0.01, None)
        if raises:
            raise RuntimeError("out of resource")
        return Comparison(0.9, "differs")

    monkeypatch.setattr(trust, "compare", compare)
    remember_tiles(CPU, {DOWN.name: OTHER})
    monkeypatch.setenv("DGEMMA_KERNELS", "triton")
    told: list[str] = []
    model = fused()
    assert proven(model, told.append) is model
    why = "RuntimeError: out of resource" if raises else "beside plain torch differs"
    assert told == [f"slower: the tiles measured on this card are forgotten, since {why}"]
    assert model.kernels == "torch reference, a tape, 1.0% from plain torch"
    assert (json.loads(file.read_text()), cuts.cut_of(DOWN.name, CPU)) == ({}, None)


def test_forgetting_all(file: Path) -> None:
    assert remembered.clear(remembered.TILES) == 0
    remember_tiles(CPU, {DOWN.name: OTHER})
    assert remembered.clear(remembered.TILES) == 1
    assert tiles_in_use(loaded()) == {}


def test_without_a_place_to_remember(file: Path) -> None:
    file.parent.write_text("no folder")
    assert not remember_tiles(CPU, {DOWN.name: OTHER})
