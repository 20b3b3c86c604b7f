"""Messages: who says what, as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from dgemma_cli.errors import UsageError
from dgemma_cli.prompting.reply import CHANNEL, CHANNEL_END

_THOUGHT = re.compile(re.escape(CHANNEL) + ".*?" + re.escape(CHANNEL_END), re.DOTALL)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. content is text and nothing but text: a control token spelt in it has no power.

    UsageError if the content is no Unicode (half a surrogate pair, as bytes that are no UTF-8 leave it).
    """

    role: Literal["system", "user", "assistant"]
    content: str

    def __post_init__(self) -> None:
        try:
            self.content.encode()
        except UnicodeEncodeError as error:
            raise UsageError(f"The {self.role} message is no valid UTF-8 (at character {error.start}).") from None

    @property
    def said(self) -> str:
        """The content as later turns may see it: an assistant's without its thoughts."""
        return _THOUGHT.sub("", self.content) if self.role == "assistant" else self.content
