"""Heavy arithmetic: a reference in torch, and what is faster."""
