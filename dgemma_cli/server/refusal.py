"""What a server says when it does not do what it was asked: an OpenAI error body, and dgemma's own words beside it."""

from __future__ import annotations

from typing import Any

from dgemma_cli.errors import DgemmaError, OutOfMemory, UsageError


class Refusal(Exception):
    """An answer that is an error. status: of HTTP; param: the parameter that is wrong; code: for programs."""

    def __init__(self, status: int, message: str, code: str, param: str | None = None, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.more = more  # for dgemma's own client

    def body(self) -> dict[str, Any]:
        """As JSON. ``error`` is what OpenAI's clients read."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error | ({"dgemma": self.more} if self.more else {})}


def wrong(param: str, what: str) -> Refusal:
    """A parameter has a value that is no good. what: the rest of a sentence about it."""
    return Refusal(400, f"{param} {what}.", "invalid_value", param)


def unsupported(param: str, hint: str = "") -> Refusal:
    """A parameter asks for what dgemma does not do."""
    return Refusal(400, f"{param} is not supported.{' ' + hint if hint else ''}", "unsupported_parameter", param)


def too_long(tokens: int, room: int) -> Refusal:
    """The prompt leaves no room."""
    message = f"The prompt has {tokens:,} tokens, and there is room for {room:,}."
    return Refusal(400, message, "context_length_exceeded", "messages", tokens=tokens, room=room)


def busy(message: str = "The queue is full: try again later.") -> Refusal:
    return Refusal(503, message, "overloaded")


def stopping() -> Refusal:
    return Refusal(503, "The server is stopping.", "stopping")


def explained(error: Exception) -> Refusal:
    """The refusal that tells of ``error``."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        error = OutOfMemory("The server's memory is exhausted.", "Ask for less: a shorter prompt, fewer tokens.")
    if isinstance(error, DgemmaError):
        status = 400 if isinstance(error, UsageError) else 503 if isinstance(error, OutOfMemory) else 500
        code = {400: "invalid_value", 503: "out_of_memory"}.get(status, "failed")
        message = " ".join(f"{error.message} {error.hint}".split())
        return Refusal(status, message, code, line=error.message, hint=error.hint, exit=error.exit_code)
    return Refusal(500, f"unexpected failure: {type(error).__name__}", "failed")
