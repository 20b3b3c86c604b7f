"""What a user may call a model: a name of the catalog, a Hub id with or without a revision, a folder."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from dgemma_cli.catalog import cache, known
from dgemma_cli.errors import ModelUnavailable

DEFAULT_REVISION = "main"
NANO_FOLDER = Path(__file__).parent.parent / "nano"
_PART = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"{_PART}/{_PART}")
_REVISION = re.compile(r"[A-Za-z0-9][\w./-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A model on the Hub. name: what the user typed; revision: a branch, a tag or a commit."""

    name: str
    repository: str
    revision: str = DEFAULT_REVISION

    @property
    def is_commit(self) -> bool:
        return _COMMIT.fullmatch(self.revision) is not None


def parse(name: str) -> list[Reference] | Path:
    """What ``name`` may mean: a folder, or models on the Hub, the preferred one first. Looks at no network.

    A name of the catalog is that model, whatever folders are here (write ``./nano`` for a folder of that name).
    Raises ModelUnavailable with near names if it can be none of these.
    """
    if name == known.NANO:
        return NANO_FOLDER
    if known.named(name.partition("@")[0]) or not name.strip() or "\0" in name:
        return parse_hub(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if name.startswith(("/", "./", "../", "~")) or name in (".", ".."):
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise ModelUnavailable(f"{name} {what}.", "A model is a folder with config.json and *.safetensors files.")
    return parse_hub(name)


def parse_hub(name: str) -> list[Reference]:
    """The models on the Hub that ``name`` may mean, the preferred one first. Raises ModelUnavailable."""
    base, at, revision = name.partition("@")
    if at and (".." in revision or not _REVISION.fullmatch(revision)):
        raise unknown(name)
    found = known.named(base)
    if found:
        if revision and base == known.DEFAULT:
            found = found[:1]  # a revision belongs to one repository
        return [Reference(name, each.repository, revision or DEFAULT_REVISION) for each in found]
    if ".." in base or "--" in base or not _HUB_ID.fullmatch(base):
        raise unknown(name)
    return [Reference(name, base, revision or DEFAULT_REVISION)]


def unknown(name: str) -> ModelUnavailable:
    """The error for a name that means nothing, with the names that come near it."""
    near = near_names(name, [*known.names(), *cache.repositories()])
    hint = f"Did you mean {' or '.join(near)}?\n" if near else ""
    return ModelUnavailable(
        f"There is no model called {name!r}.",
        f"{hint}A model is one of {', '.join(known.names())},\na Hugging Face id (owner/name), or a folder.",
    )


def near_names(name: str, candidates: Iterable[str]) -> list[str]:
    """Up to three of ``candidates`` that look like ``name``, the nearest first."""
    by_lower = {candidate.lower(): candidate for candidate in candidates}
    return [by_lower[each] for each in difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)]


def short_name(repository: str) -> str:
    """What a user types for a repository: the catalog's name if it has one."""
    return next((each.name for each in known.KNOWN if each.repository == repository), repository)


def completions(incomplete: str) -> list[str]:
    """Names that begin so: the catalog's, and those of what is in the cache. No network; nothing is imported for it."""
    found = dict.fromkeys([*known.names(), *cache.repositories()])
    return [name for name in found if name.startswith(incomplete)]
