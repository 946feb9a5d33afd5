"""Modules that are used only where somebody has imported them."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from types import ModuleType

__all__ = ["imported"]


def imported(name: str) -> ModuleType | None:
    """Returns a module that has been imported, or None; waits where another thread is importing it, which may fail.

    `sys.modules` has a module from the beginning of its import on, when most of its names are still missing.
    """
    if name in sys.modules:
        with suppress(ImportError):
            return importlib.import_module(name)
    return None
