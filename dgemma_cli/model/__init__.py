"""The network: one stack, run causally over text and bidirectionally over a canvas."""
