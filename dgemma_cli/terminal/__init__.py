"""Consumers of the event stream: live canvas, plain text, JSON."""
