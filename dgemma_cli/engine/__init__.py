"""The loop over canvases."""
