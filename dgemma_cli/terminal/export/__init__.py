"""A film as a file that others can open."""
