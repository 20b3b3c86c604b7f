"""What is said once to whoever meets the embedded model: that it is a demonstration, and how to get the large one."""

from __future__ import annotations

from dgemma_cli.terminal.environment import Environment

NAME = "nano"
HINT = "nano is a small demonstration model. The large one: dgemma check, then dgemma pull (this is said once)"


def introduce(model: str, environment: Environment) -> None:
    """Say it on standard error if ``model`` is nano, somebody watches, and it was never said before."""
    if model != NAME or not environment.stderr_is_terminal:
        return
    from dgemma_cli.chat.store import state_folder

    mark = state_folder(environment.variables) / "met-nano"
    try:
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
    except OSError:  # it was said, or it cannot be remembered: better once too few than every time
        return
    environment.say(HINT, dim=True)
