"""Conversations: what was said, how it is kept, and the commands that work on it."""
