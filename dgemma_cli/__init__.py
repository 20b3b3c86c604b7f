"""DiffusionGemma from Python and from the command line.

``import dgemma_cli`` is cheap: torch is imported when :func:`load` is called, or :func:`generate`
first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["DgemmaError", "Model", "Options", "__version__", "generate", "load"]

if TYPE_CHECKING:
    from dgemma_cli.api import load
    from dgemma_cli.engine.generate import generate
    from dgemma_cli.engine.options import Options
    from dgemma_cli.errors import DgemmaError
    from dgemma_cli.model.model import Model

_HOMES = {
    "load": "dgemma_cli.api",
    "generate": "dgemma_cli.engine.generate",
    "Options": "dgemma_cli.engine.options",
    "DgemmaError": "dgemma_cli.errors",
    "Model": "dgemma_cli.model.model",
}


def __getattr__(name: str) -> Any:
    """Import the public names on first use, so that ``dgemma --help`` never pays for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'dgemma_cli' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
