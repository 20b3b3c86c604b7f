"""What a chat can be set to: the sampler's knobs and a few switches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace

from dgemma_cli.engine.options import Options
from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.near import near

Number = int | float | str
_ON = {"on": True, "off": False, "yes": True, "no": False, "true": True, "false": False}


def _switch(word: str) -> bool:
    if word not in _ON:
        raise ValueError
    return _ON[word]


# Every setting of a generation but ``drafts``, which the display decides.
KNOBS: dict[str, Callable[[str], Number]] = {
    "max-tokens": int,
    "seed": int,
    "preset": str,
    "steps": int,
    "horizon": int,
    "t-min": float,
    "t-max": float,
    "entropy-bound": float,
    "spacing": int,
    "stability": int,
    "confidence": float,
    "best-of": int,
    "repair": _switch,
    "guard": _switch,
}
SWITCHES = {"think": "thinking", "show-thinking": "show_thinking", "markdown": "markdown", "stats": "stats"}


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the replies to come. thinking: let the model think first; show_thinking: show thoughts in full."""

    options: Options = field(default_factory=Options)
    thinking: bool = False
    show_thinking: bool = False
    markdown: bool = True
    stats: bool = False

    def changed(self, name: str, word: str) -> Settings:
        """``/set name word``. "default" is how it is without any setting. Raises UsageError."""
        if name in SWITCHES:
            if word not in _ON:
                raise UsageError(f"{name} is on or off, not {word!r}.")
            return replace(self, **{SWITCHES[name]: _ON[word]})  # type: ignore[arg-type]
        if name not in KNOBS:
            raise UsageError(f"There is no setting {name!r}.", near(name, [*KNOBS, *SWITCHES]))
        key = name.replace("-", "_")
        if word == "default":
            return replace(self, options=replace(self.options, **{key: getattr(Options(), key)}))
        try:
            value = KNOBS[name](word)
        except ValueError:
            kind = {int: "a whole number", float: "a number"}.get(KNOBS[name], "on or off")  # type: ignore[call-overload]
            raise UsageError(f"{name} takes {kind}, not {word!r}.") from None
        return replace(self, options=replace(self.options, **{key: value}))  # type: ignore[arg-type]

    def lines(self) -> list[tuple[str, str]]:
        """Each setting and its value, in words."""
        found = []
        for entry in fields(Options):
            name = entry.name.replace("_", "-")
            if name in KNOBS:
                value = getattr(self.options, entry.name)
                unset = "random" if name == "seed" else "the preset's or the model's"
                known = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
                found.append((name, unset if value is None else known))
        return found + [(name, "on" if getattr(self, key) else "off") for name, key in SWITCHES.items()]
