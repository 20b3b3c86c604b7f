"""The keyboard while a model is loaded or an answer written: what is typed waits for the next prompt, unseen."""

from __future__ import annotations

import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_IFLAG, _LFLAG = 0, 3  # places in what tcgetattr gives


@contextmanager
def typed_ahead(descriptor: int) -> Iterator[None]:
    """Keep typed keys unseen and unchanged (Enter stays Enter) until the block ends; Ctrl-C and Ctrl-Z still work.

    descriptor: of the terminal. One that has gone, or is none, is left alone.
    """
    try:
        before = termios.tcgetattr(descriptor)
    except termios.error:
        yield
        return
    quiet = [*before]
    quiet[_IFLAG] &= ~termios.ICRNL
    quiet[_LFLAG] &= ~(termios.ECHO | termios.ICANON)
    with suppress(termios.error):
        termios.tcsetattr(descriptor, termios.TCSANOW, quiet)
    try:
        yield
    finally:
        with suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
