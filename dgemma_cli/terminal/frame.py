"""One picture of a run: the text so far, the canvas by state, a status line; never larger than the screen."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby

from dgemma_cli.terminal.canvas import State, settled_share, shown_length, states
from dgemma_cli.terminal.entries import Block, Commit, Entry, Finish, Start, Step
from dgemma_cli.terminal.layout import Run, crop, crop_left, wrap
from dgemma_cli.terminal.pace import Pace
from dgemma_cli.terminal.palette import DIM, Palette, styled
from dgemma_cli.terminal.untrusted import visible

_SPARE_ROWS = 3  # of the screen, kept free: the command line stays in sight, and nothing scrolls
_SPARKS = 24  # steps the sparkline remembers


@dataclass(slots=True)
class Scene:
    """What a run shows at one moment, fed with its entries.

    text, thinking: committed and not yet printed above the frame. activity: what goes on while there is no canvas;
    waited: for how many seconds.
    """

    activity: str = ""
    waited: int = 0
    text: str = ""
    thinking: str = ""
    block: Block | None = None
    step: Step | None = None
    before: Step | None = None
    entropies: list[float] = field(default_factory=list)

    def feed(self, entry: Entry) -> None:
        """Take in the next entry. Committed text is added to ``text`` and ``thinking``."""
        match entry:
            case Start():
                self.activity = "reading the prompt"
            case Block():
                self.block, self.step, self.before, self.entropies = entry, None, None, []
            case Step():
                self.before = self.step if self.step and self.step.block == entry.block else None
                self.step = entry
                self.entropies.append(sum(entry.entropy) / max(1, len(entry.entropy)))
            case Commit():
                self.text += entry.text
                self.thinking += entry.thinking
                self.block = self.step = self.before = None
                self.activity = "reading the block"
            case Finish():
                self.text += entry.rest
                self.activity = ""

    def snapshot(self) -> Scene:
        """A copy that later entries leave alone."""
        return replace(self, entropies=self.entropies[-_SPARKS:])


def draw(scene: Scene, palette: Palette, columns: int, rows: int, pace: Pace, unfold: bool = False) -> list[str]:
    """Lines for a screen of ``columns`` by ``rows``, at least one fewer than it has, the status line last.

    unfold: show thinking as text; else it is one dim line. The end of the text matters most: the top is cut.
    """
    width = max(1, columns - 1)
    # A line that does not end may be longer than many screens: what is far above the screen needs no wrapping.
    thinking, text = _runs(scene, palette, most=max(1, columns * rows))
    status = _status(scene, palette, pace, width)
    body: list[str] = []
    if thinking:
        body = wrap(thinking, width) if unfold else [_folded(thinking, palette, width)]
    if text:
        body += wrap(text, width)
    room = max(0, rows - _SPARE_ROWS - len(status))
    return (body[-room:] if room else []) + status


def _runs(scene: Scene, palette: Palette, most: int) -> tuple[list[Run], list[Run]]:
    """The thinking and the text of a scene: of what is committed the last ``most`` characters, and the draft."""
    thinking: list[Run] = [(visible(scene.thinking[-most:]), DIM)] if scene.thinking else []
    text: list[Run] = [(visible(scene.text[-most:]), "")] if scene.text else []
    if scene.step is None:
        if scene.block is not None:
            text.append((palette.mask * scene.block.length, DIM))
        return thinking, text
    step = scene.step
    found = states(step, scene.before)
    canvas: list[tuple[str, str, bool]] = []
    for place in range(shown_length(step, found)):
        state = found[place]
        piece = visible(step.draft[place])
        if state is State.NOISE:
            piece = masked(piece, palette.mask)
        if piece:
            style = palette.style(state, step.changed[place], step.entropy[place])
            canvas.append((piece, style, step.thought[place]))
    for thought, group in groupby(canvas, key=lambda part: part[2]):
        (thinking if thought else text).extend((piece, style) for piece, style, _ in group)
    return thinking, text


def masked(piece: str, glyph: str) -> str:
    """Noise in the shape of a draft's words, so that the layout stays as it is when they appear."""
    shape = "".join(character if character == " " else glyph for character in piece)
    return shape if shape.strip() else glyph


def _folded(thinking: list[Run], palette: Palette, width: int) -> str:
    text = " ".join("".join(text for text, _ in thinking)[-4 * width :].split())
    label = f"thinking {palette.dot} "
    if width <= 2 * len(label):
        return styled(crop("thinking", width), DIM)
    return styled(label + crop_left(text, width - len(label), palette.ellipsis), DIM)


def _status(scene: Scene, palette: Palette, pace: Pace, width: int) -> list[str]:
    """The status line, its least important parts left out where there is no room."""
    if scene.block is None:
        if not scene.activity:
            return []
        waited = f" {scene.waited} s" if scene.waited > 1 else ""
        return [styled(crop(scene.activity + palette.ellipsis + waited, width), DIM)]
    step = scene.step
    count = f"{step.step if step else 0}/{scene.block.cap}"
    share = settled_share(step, states(step, scene.before)) if step else 0.0
    parts = [f"block {scene.block.block + 1}", f"step {count}", f"{share:.0%} settled"]
    if scene.entropies:
        parts.append(sparkline(scene.entropies[-_SPARKS:], palette))
    if pace.tokens_per_second is not None:
        parts.append(f"{pace.tokens_per_second:,.0f} tok/s")
    if pace.step_seconds is not None:
        parts.append(f"{pace.step_seconds * 1000:,.0f} ms/step")
    dot = f" {palette.dot} "
    whole = [dot.join(parts[:end]) for end in range(len(parts), 2, -1)]  # the last are the first to go
    short = [dot.join(parts[1:3]), f"{count}{dot}{share:.0%}"]
    line = next((line for line in [*whole, *short] if len(line) <= width), short[-1])
    return [styled(crop(line, width), DIM)]


def sparkline(values: list[float], palette: Palette) -> str:
    """One bar a value, against the largest."""
    top = max(values, default=0.0)
    bars = palette.bars
    return "".join(bars[min(len(bars) - 1, int(value / top * len(bars)))] if top > 0 else bars[0] for value in values)
