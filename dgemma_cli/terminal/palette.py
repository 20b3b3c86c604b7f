"""How the state of a position looks: the terminal's 16 colours and attributes, glyphs, and their ASCII stand-ins."""

from __future__ import annotations

from dataclasses import dataclass

from dgemma_cli.terminal.canvas import State
from dgemma_cli.terminal.color_by import ColorBy

DIM = "2"
# Upper bounds in nats of each heat, and the colours: certain to lost.
_HEAT = ((0.01, ""), (0.1, "36"), (0.5, "32"), (1.5, "33"), (float("inf"), "31"))


@dataclass(frozen=True, slots=True)
class Palette:
    """What a terminal can show. color: colours may be used (attributes such as dim may be either way).
    unicode: any character may be used. by: what colours a position.
    """

    color: bool
    unicode: bool
    by: ColorBy = ColorBy.STATE

    @property
    def mask(self) -> str:
        """One cell of noise."""
        return "░" if self.unicode else "."

    @property
    def bars(self) -> str:
        """Eight heights for a sparkline."""
        return "▁▂▃▄▅▆▇█" if self.unicode else "_.,-=+*#"

    @property
    def dot(self) -> str:
        return "·" if self.unicode else "-"

    @property
    def ellipsis(self) -> str:
        return "…" if self.unicode else "..."

    def style(self, state: State, changed: bool, entropy: float) -> str:
        """SGR parameters of a position ("" for plain)."""
        if self.by is ColorBy.ENTROPY:
            return next(code for bound, code in _HEAT if entropy < bound)
        if state is State.NOISE:
            return DIM
        if state is State.SETTLED:
            return ""
        if state is State.ACCEPTED:
            return "1;32" if self.color else "1"
        return ("2;33" if self.color else "2;4") if changed else DIM


def styled(text: str, style: str) -> str:
    """``text`` between SGR codes."""
    return f"\x1b[{style}m{text}\x1b[0m" if style and text else text
