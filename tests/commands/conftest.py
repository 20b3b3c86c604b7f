"""Commands, and the fake Hub's fixtures, for these tests."""

from command_fixtures import dgemma
from hub_fixtures import checkpoint, hub

__all__ = ["checkpoint", "dgemma", "hub"]
