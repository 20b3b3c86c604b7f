"""Tiles that were measured on this card (``tuning``): remembered, and worked in once a model is loaded.

In tiles.json, in the user's cache folder: for a card, the versions and the kernels' code, the cut of each use. A model
takes those of its own uses, if they are among the cuts that are tried for them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch

from dgemma_cli.engine import remembered
from dgemma_cli.engine.keys import card, key_of
from dgemma_cli.engine.remembered import TILES
from dgemma_cli.kernels.cuts import Cut, cut_of, settle, unsettle
from dgemma_cli.model.fused import FusedModel
from dgemma_cli.model.kernel_uses import uses_of

_CODE = ("kernels",)  # what their times hang on
_MEASURED = ", {} of {} tiles measured on this card"
_OUTDATED = ", no tiles measured: those of this card are of other versions"


def settle_tiles(model: FusedModel) -> None:
    """Let ``model`` work in the tiles that are remembered for its card, and say so in ``model.kernels``. To be called
    before anything is recorded.
    """
    uses = uses_of(model)
    if not uses:
        return
    entries = remembered.read(TILES)
    cuts = _cuts(entries.get(_key(model.device)))
    known = {use.name: cut for use in uses for cut in use.cuts if cut == cuts.get(use.name)}
    settle(model.device, known)
    if known:
        model.kernels += _MEASURED.format(len(known), len(uses))
    elif any(_card_of(entry) == _name(model.device) for key, entry in entries.items() if key != _key(model.device)):
        model.kernels += _OUTDATED


def tiles_in_use(model: FusedModel) -> dict[str, Cut]:
    """Uses of ``model`` that are cut as it was measured."""
    cuts = {use.name: cut_of(use.name, model.device) for use in uses_of(model)}
    return {name: cut for name, cut in cuts.items() if cut is not None}


def remember_tiles(device: torch.device, cuts: Mapping[str, Cut]) -> bool:
    """What was measured on ``device``, for models that are loaded from now on, beside what is known of other uses.
    Whether it could be written.
    """
    key = _key(device)
    before = _cuts(remembered.read(TILES).get(key))
    entry = {"card": _name(device), "tiles": {name: list(cut) for name, cut in {**before, **cuts}.items()}}
    return remembered.remember(TILES, key, entry)


def drop_tiles(model: FusedModel) -> bool:
    """Go back to the usual tiles, and forget the others. Whether there were any."""
    cuts = tiles_in_use(model)
    if not cuts:
        return False
    unsettle(model.device, cuts)
    remembered.forget(TILES, _key(model.device))
    model.kernels = re.sub(_MEASURED.format(r"\d+", r"\d+"), "", model.kernels)
    return True


def _key(device: torch.device) -> str:
    return key_of(device, _CODE)


def _name(device: torch.device) -> str:
    return str(card(device))


def _cuts(entry: object) -> dict[str, Cut]:
    """What there is of an entry that anyone may have written."""
    tiles = entry.get("tiles") if isinstance(entry, dict) else None
    pairs = tiles.items() if isinstance(tiles, dict) else ()
    return {name: tuple(cut) for name, cut in pairs if isinstance(cut, list)}


def _card_of(entry: object) -> object:
    return entry.get("card") if isinstance(entry, dict) else None
