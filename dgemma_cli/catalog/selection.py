"""Which files of a repository a pull needs, and which repositories it refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from dgemma_cli.catalog.hub import Listing, RemoteFile
from dgemma_cli.errors import CheckpointError, ModelUnavailable

INDEX = "model.safetensors.index.json"
REQUIRED = ("config.json", "tokenizer.json")
# Read if they are there. The rest (pictures, other formats, processor settings) stays where it is.
_OPTIONAL = (
    "README.md",
    "LICENSE",
    "generation_config.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "hf_quant_config.json",
    INDEX,
)
_SMALL_LIMIT = 200_000_000  # bytes of any file that is no weights; tokenizer.json has 32 MB
_CONFIG_LIMIT = 200_000  # bytes of config.json, which has 5 kB
_SHARD = re.compile(r"model-(\d{5})-of-(\d{5})\.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".joblib", ".msgpack", ".h5")


def select(listing: Listing) -> tuple[RemoteFile, ...]:
    """The files to have, the small ones first. Raises ModelUnavailable or CheckpointError for a repository that is
    no safetensors checkpoint, lacks a file, or names files that would leave its folder.
    """
    repository = listing.reference.repository
    for file in listing.files:
        refuse_escape(file.name, repository)
    files = {file.name: file for file in listing.files}
    weights = _weights(files, repository)
    for name in REQUIRED:
        if name not in files:
            raise ModelUnavailable(f"{repository} has no {name}.", "It is no checkpoint that dgemma can run.")
    small = [files[name] for name in (*REQUIRED, *_OPTIONAL) if name in files]
    for file in small:
        if file.size > (_CONFIG_LIMIT if file.name == "config.json" else _SMALL_LIMIT):
            raise CheckpointError(f"{repository}: {file.name} has {file.size:,} bytes, which cannot be right.")
    return (*small, *weights)


def refuse_escape(name: str, repository: str) -> None:
    """Raise CheckpointError if a file of this name would be written outside of the model's folder."""
    parts = name.split("/")
    if PurePosixPath(name).is_absolute() or any(part in ("", ".", "..") for part in parts) or set(name) & set("\\:\0"):
        raise CheckpointError(
            f"{repository} names a file that leaves its folder: {name!r}.", "Nothing was fetched. Do not trust it."
        )


def _weights(files: Mapping[str, RemoteFile], repository: str) -> list[RemoteFile]:
    """The shards if there are any, else the one file: never two formats of the same weights."""
    shards = {int(match[1]): (name, int(match[2])) for name in files if (match := _SHARD.fullmatch(name))}
    if shards:
        count = max(of for _, of in shards.values())
        absent = [number for number in range(1, count + 1) if shards.get(number, ("", 0))[1] != count]
        if absent or len(shards) != count:
            raise ModelUnavailable(f"{repository} itself is incomplete: it has {len(shards)} of {count} shards.")
        if INDEX not in files:
            raise ModelUnavailable(f"{repository} has {count} shards and no {INDEX}.")
        return [files[name] for _, (name, _) in sorted(shards.items())]
    single = [name for name in files if name.endswith(".safetensors") and "/" not in name]
    if "model.safetensors" in single:
        single = ["model.safetensors"]
    if len(single) == 1:
        return [files[single[0]]]
    pickles = sorted(name for name in files if name.lower().endswith(_PICKLES))
    if not single and pickles:
        raise ModelUnavailable(
            f"{repository} has its weights only as {pickles[0]}, which can run code when it is read.",
            "dgemma reads safetensors only.",
        )
    if not single:
        raise ModelUnavailable(f"{repository} has no safetensors weights.", "dgemma reads safetensors only.")
    raise ModelUnavailable(f"{repository} has {len(single)} safetensors files and none is model.safetensors.")
