"""The fake Hub's fixtures, for these tests."""

from hub_fixtures import checkpoint, dgemma, hub

__all__ = ["checkpoint", "dgemma", "hub"]
