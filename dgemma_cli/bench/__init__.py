"""Measuring: prompts, the clock around a run, statistics, floors and reports. Imports no torch by itself."""
