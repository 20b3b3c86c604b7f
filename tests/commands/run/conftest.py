"""A scripted model, and the command that runs it."""

from scripted_run import dgemma, session

__all__ = ["dgemma", "session"]
