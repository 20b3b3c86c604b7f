"""Text into the clipboard: through the desktop's own program, or through the terminal."""

from __future__ import annotations

import base64
import shutil
import subprocess

from dgemma_cli.errors import DgemmaError
from dgemma_cli.terminal.environment import Environment

# The variable that tells of the desktop ("" for any), and its program.
_PROGRAMS = (("WAYLAND_DISPLAY", ["wl-copy"]), ("DISPLAY", ["xclip", "-selection", "clipboard"]), ("", ["pbcopy"]))


def copy_text(text: str, environment: Environment) -> str:
    """Copy ``text``; returns what there is to say about it. Raises DgemmaError."""
    for variable, command in _PROGRAMS:
        if (not variable or environment.variables.get(variable)) and shutil.which(command[0]):
            try:
                subprocess.run(command, input=text.encode(), check=True, timeout=5, stdout=subprocess.DEVNULL)
            except (OSError, subprocess.SubprocessError) as error:
                raise DgemmaError(f"{command[0]} failed: {error}") from None
            return "copied"
    environment.write(f"\x1b]52;c;{base64.b64encode(text.encode()).decode()}\x07")
    return "sent to the terminal's clipboard (where the terminal allows it)"
