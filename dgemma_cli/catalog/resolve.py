"""From what a user calls a model to the folder it lies in. Never touches the network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dgemma_cli.catalog import cache
from dgemma_cli.catalog.known import INSTEAD
from dgemma_cli.catalog.names import parse
from dgemma_cli.errors import ModelUnavailable


@dataclass(frozen=True, slots=True)
class Location:
    """A model on this machine. name: the catalog's, the Hub's or the folder's; revision: the commit, if it has one."""

    name: str
    folder: Path
    revision: str | None


def resolve(name: str) -> Location:
    """Find the model called ``name`` on this machine.

    ``diffusiongemma`` is whichever of its checkpoints is here, in the catalog's order. Raises ModelUnavailable:
    unknown (with near names), not downloaded, offline, incomplete, each with what to do about it.
    """
    meaning = parse(name)
    if isinstance(meaning, Path):
        if not (meaning / "config.json").is_file():
            raise ModelUnavailable(
                f"{meaning} has no config.json.", "A model is a folder with config.json and *.safetensors files."
            )
        return Location(name, meaning, None)
    found = [(reference, cache.find(reference.repository, reference.revision)) for reference in meaning]
    present = [(reference, snapshot) for reference, snapshot in found if snapshot is not None]
    for reference, snapshot in present:
        if snapshot.complete:
            full = reference.name if len(meaning) == 1 else reference.repository
            return Location(full, snapshot.folder, snapshot.commit)
    if present:
        snapshot = present[0][1]
        there = len(snapshot.needed) - len(snapshot.missing)
        raise ModelUnavailable(
            f"{name} is incomplete: {there} of {len(snapshot.needed)} files are here.",
            f"This fetches the rest: dgemma pull {name}",
        )
    if cache.offline():
        raise ModelUnavailable(
            f"{name} is not downloaded, and HF_HUB_OFFLINE forbids fetching it.",
            f"Unset HF_HUB_OFFLINE, then: dgemma pull {name}\n{INSTEAD}",
        )
    raise ModelUnavailable(f"{name} is not downloaded.", f"Fetch it: dgemma pull {name}\n{INSTEAD}")
