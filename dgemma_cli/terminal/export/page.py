"""A film as one HTML page with a scrubber and a map of the entropies; it loads nothing from anywhere."""

from __future__ import annotations

import json
from html import escape
from importlib.resources import files
from typing import Any

from dgemma_cli.terminal.canvas import shown_length, states
from dgemma_cli.terminal.entries import Finish
from dgemma_cli.terminal.film import Film, Shot, command_line
from dgemma_cli.terminal.untrusted import visible


def to_html(film: Film) -> str:
    """The page of ``page.html`` with the film's data in it."""
    template = files("dgemma_cli.terminal.export").joinpath("page.html").read_text("utf-8")
    data = {
        "command": visible(command_line(film.start)),
        "model": film.start.model,
        "shots": [_shot(shot) for shot in film.shots],
        "figures": _figures(film.finish),
    }
    # Within a script only "<" could end it.
    embedded = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = template.replace("{{title}}", escape(" ".join(visible(film.start.prompt).split())))
    return page.replace("{{data}}", embedded)


def _shot(shot: Shot) -> dict[str, Any]:
    """What the page draws of one shot. kinds: a letter a position (noise, draft, accepted, settled), as a capital where
    the draft changed.
    """
    scene = shot.scene
    found: dict[str, Any] = {"ms": round(shot.seconds * 1000), "text": visible(scene.text)}
    if scene.thinking:
        found["thinking"] = visible(scene.thinking)
    if scene.block is not None:
        found |= {"block": scene.block.block, "cap": scene.block.cap, "length": scene.block.length}
    if scene.step is not None:
        step = scene.step
        kinds = [state.value[0] for state in states(step, scene.before)]
        found |= {
            "step": step.step,
            "draft": [visible(piece) for piece in step.draft],
            "kinds": "".join(
                kind.upper() if changed else kind for kind, changed in zip(kinds, step.changed, strict=True)
            ),
            "entropy": list(step.entropy),
            "shown": shown_length(step, states(step, scene.before)),
        }
        if any(step.thought):
            found["thought"] = "".join("01"[flag] for flag in step.thought)
    return found


def _figures(finish: Finish | None) -> str:
    if finish is None:
        return "The recording was cut short."
    return (
        f"{finish.tokens:,} tokens in {finish.steps:,} steps, {finish.tokens_per_forward:.1f} tokens a forward pass, "
        f"{finish.tokens_per_second:,.0f} tokens/s"
    )
