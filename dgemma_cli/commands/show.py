"""``dgemma show``: what a model is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dgemma_cli.catalog.known import DEFAULT
from dgemma_cli.catalog.names import completions
from dgemma_cli.catalog.resolve import Location, resolve
from dgemma_cli.errors import CheckpointError, UsageError
from dgemma_cli.terminal.environment import Environment
from dgemma_cli.terminal.untrusted import visible
from dgemma_cli.units import size

if TYPE_CHECKING:
    from dgemma_cli.catalog.description import Description
    from dgemma_cli.memory import Footprint

_CONTEXTS = (8_192, 32_768, 131_072)  # tokens


def show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            envvar="DGEMMA_MODEL",
            autocompletion=completions,
            help="A model's name, a Hugging Face id, or a folder.",
        ),
    ] = DEFAULT,
    template: Annotated[bool, typer.Option("--template", help="Print only the chat template.")] = False,
    json_output: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Describe a model on this machine: sizes, sampler, memory."""
    environment = Environment.current()
    if template and json_output:
        raise UsageError("--template and --json contradict each other.")
    location = resolve(model)
    if template:
        environment.write(visible(_template(location.folder)).rstrip("\n") + "\n")
        return

    from dgemma_cli import memory
    from dgemma_cli.catalog.description import describe

    found = describe(location.folder)
    footprint = memory.of_folder(location.folder)
    if json_output:
        environment.write(json.dumps(_fields(location, found, footprint), indent=2) + "\n")
    else:
        lines = [f"{label:<13} {visible(value)}" for label, value in _lines(location, found, footprint)]
        environment.write("\n".join(lines) + "\n")


def _needs(footprint: Footprint) -> dict[int, int]:
    """Bytes in all on a GPU, by tokens of context."""
    most = footprint.config.max_context
    return {tokens: footprint.needs(tokens, "cuda").total for tokens in [*(n for n in _CONTEXTS if n < most), most]}


def _lines(location: Location, found: Description, footprint: Footprint) -> list[tuple[str, str]]:
    config, defaults = found.config, found.defaults
    needs = ", ".join(f"{size(count)} at {_tokens(tokens)}" for tokens, count in _needs(footprint).items())
    return [
        ("model", location.name),
        ("folder", str(location.folder)),
        ("revision", location.revision or "none"),
        ("architecture", found.architecture),
        ("parameters", f"{_count(found.parameters)}, {_count(found.active)} active (text)"),
        ("layers", f"{len(config.layers)}, {config.num_experts} experts, {config.top_k_experts} a token"),
        ("format", found.format),
        ("vocabulary", f"{config.vocab_size:,} tokens"),
        ("context", f"{config.max_context:,} tokens"),
        ("canvas", f"{config.canvas_length} tokens"),
        (
            "sampler",
            f"at most {defaults.steps} steps, entropy bound {defaults.entropy_bound:g}, temperature "
            f"{defaults.t_max:g} to {defaults.t_min:g}, confidence {defaults.confidence:g}",
        ),
        ("licence", found.license or "not stated"),
        ("disk", size(found.disk)),
        ("memory", f"weights {size(footprint.weights)}; in all, on a GPU, {needs} of context"),
    ]


def _fields(location: Location, found: Description, footprint: Footprint) -> dict[str, Any]:
    config, defaults = found.config, found.defaults
    return {
        "model": location.name,
        "folder": str(location.folder),
        "revision": location.revision,
        "architecture": found.architecture,
        "parameters": found.parameters,
        "active_parameters": found.active,
        "layers": len(config.layers),
        "experts": config.num_experts,
        "experts_per_token": config.top_k_experts,
        "format": found.format,
        "vocabulary": config.vocab_size,
        "context": config.max_context,
        "canvas": config.canvas_length,
        "sampler": {
            "steps": defaults.steps,
            "t_min": defaults.t_min,
            "t_max": defaults.t_max,
            "entropy_bound": defaults.entropy_bound,
            "stability": defaults.stability,
            "confidence": defaults.confidence,
            "eos_ids": sorted(defaults.eos_ids),
        },
        "license": found.license,
        "disk": found.disk,
        "memory": {
            "weights": footprint.weights,
            "needs": {str(key): value for key, value in _needs(footprint).items()},
        },
    }


def _template(folder: Path) -> str:
    """The chat template as it stands in its file, or in tokenizer_config.json."""
    from dgemma_cli.model.config import read_json

    file = folder / "chat_template.jinja"
    try:
        if file.exists():
            return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from None
    settings = folder / "tokenizer_config.json"
    text = read_json(settings).get("chat_template") if settings.exists() else None
    if not isinstance(text, str):
        raise CheckpointError(f"{folder} has no chat template.")
    return text


def _tokens(count: int) -> str:
    return f"{count // 1024}K" if count % 1024 == 0 else f"{count:,}"


def _count(number: int) -> str:
    for unit, length in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= length:
            return f"{number / length:.1f} {unit}"
    return str(number)
