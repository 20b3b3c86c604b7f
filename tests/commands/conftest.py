"""The fake Hub's fixtures, for these tests."""

from hub_fixtures import checkpoint, hub

__all__ = ["checkpoint", "hub"]
