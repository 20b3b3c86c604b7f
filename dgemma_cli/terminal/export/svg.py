"""A film as an animated SVG: one file, no script, no font and no address outside of it."""

from __future__ import annotations

from html import escape

from dgemma_cli.terminal.export.stage import Row, Span, Stage, seconds
from dgemma_cli.terminal.export.theme import BACKGROUND, COLORS, FOREGROUND
from dgemma_cli.terminal.film import Film
from dgemma_cli.terminal.untrusted import visible

_CELL, _LINE, _FONT_SIZE = 8.4, 19, 14  # pixels
_PAD = 16
_BAR = 22  # the window's upper edge


def to_svg(film: Film, stage: Stage) -> str:
    """The whole film, repeated without end. Shots lie side by side on a strip that jumps past a window."""
    pictures = [stage.picture(film, shot) for shot in film.shots]
    width = round(stage.columns * _CELL)
    height = max((len(picture) for picture in pictures), default=1) * _LINE
    ids: dict[Row, str] = {}
    strip = []
    for index, picture in enumerate(pictures):
        uses = []
        for number, row in enumerate(picture):
            if row:
                name = ids.setdefault(row, f"r{len(ids)}")
                uses.append(f'<use href="#{name}" y="{number * _LINE}"/>')
        strip.append(f'<g transform="translate({index * width})">{"".join(uses)}</g>')
    rows = "".join(
        f'<text id="{name}" y="14" xml:space="preserve">{"".join(map(_span, row))}</text>' for row, name in ids.items()
    )
    full_width, full_height = width + 2 * _PAD, height + 2 * _PAD + _BAR
    dots = "".join(f'<circle cx="{_PAD + 4 + 18 * index}" cy="18" r="5" fill="#3b4252"/>' for index in range(3))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{full_width}" height="{full_height}" '
        f'viewBox="0 0 {full_width} {full_height}" role="img">'
        f"<title>{_xml(film.start.prompt)}</title><desc>{_xml(film.text)}</desc>"
        f"<style>{_style(film, width)}</style><defs>{rows}</defs>"
        f'<rect width="100%" height="100%" rx="10" fill="{BACKGROUND}"/>{dots}'
        f'<svg x="{_PAD}" y="{_PAD + _BAR}" width="{width}" height="{height}">'
        f'<g class="strip">{"".join(strip)}</g></svg></svg>\n'
    )


def _span(span: Span) -> str:
    if not span.text.strip():
        return ""
    names = [name for name, on in (("b", span.bold), ("d", span.dim), ("u", span.underline)) if on]
    if span.color:
        names.append(f"c{span.color}")
    # The text's own length, so that the grid holds whatever font the reader has.
    text = span.text.rstrip()
    cells = span.cells - (len(span.text) - len(text))
    kind = f' class="{" ".join(names)}"' if names else ""
    return (
        f'<tspan x="{span.column * _CELL:g}" textLength="{cells * _CELL:g}" lengthAdjust="spacingAndGlyphs"{kind}>'
        f"{_xml(text)}</tspan>"
    )


def _xml(text: str) -> str:
    """Model text as XML, without the two characters that XML does not know."""
    return escape(visible(text), quote=False).translate({0xFFFE: None, 0xFFFF: None})


def _style(film: Film, width: int) -> str:
    stays = seconds(film)
    total = sum(stays)
    frames, begun = [], 0.0
    for index, stay in enumerate(stays):
        frames.append(f"{100 * begun / total if total else 0:.3f}%{{transform:translateX({-index * width}px)}}")
        begun += stay
    last = f"translateX({-(len(stays) - 1) * width}px)"
    colors = "".join(f".c{code}{{fill:{color}}}" for code, color in COLORS.items())
    return (
        f"text{{font:{_FONT_SIZE}px ui-monospace,'SF Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace;"
        f"fill:{FOREGROUND};white-space:pre}}.b{{font-weight:700}}.d{{opacity:.5}}.u{{text-decoration:underline}}{colors}"
        f".strip{{animation:run {max(total, 0.1):.2f}s step-end infinite}}@keyframes run{{{''.join(frames)}}}"
        f"@media(prefers-reduced-motion:reduce){{.strip{{animation:none;transform:{last}}}}}"
    )
