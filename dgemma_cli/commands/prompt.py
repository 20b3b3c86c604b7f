"""The prompt of a one-shot command: its arguments, standard input, or both."""

from __future__ import annotations

from collections.abc import Sequence

from dgemma_cli.errors import UsageError
from dgemma_cli.terminal.environment import Environment

_EXAMPLES = 'Try: dgemma run "Write a haiku about rivers."\nor:  cat notes.txt | dgemma run "Sum this up:"'


def read_prompt(words: Sequence[str], environment: Environment) -> str:
    """``words`` joined by spaces; what is piped in comes first, a blank line between. "-" alone is standard input.

    Raises UsageError if there is nothing, or if it is no UTF-8.
    """
    dash = list(words) == ["-"]
    argument = "" if dash else " ".join(words)
    try:
        argument.encode()
    except UnicodeEncodeError:  # Python's stand-ins for bytes it could not decode
        raise UsageError("The prompt is not valid UTF-8.") from None
    piped = _read(environment) if dash or not environment.stdin_is_terminal else ""
    parts = [part for part in (piped.rstrip("\r\n"), argument) if part.strip()]
    if not parts:
        raise UsageError("There is no prompt." if not (words or piped) else "The prompt is empty.", _EXAMPLES)
    return "\n\n".join(parts)


def _read(environment: Environment) -> str:
    try:
        data = environment.stdin.read()
    except OSError as error:
        raise UsageError(f"Standard input cannot be read: {error.strerror or error}.") from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"Standard input is not valid UTF-8 (byte {error.start + 1}, in line {line}).",
            "Convert it first, for example: iconv -f latin1 -t utf-8",
        ) from None
