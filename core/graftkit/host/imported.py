"""Modules that are used only where somebody has imported them."""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from types import ModuleType

from graftkit.interfaces.fork_lock import in_forked_process

__all__ = ["imported", "is_half"]


def imported(name: str) -> ModuleType | None:
    """Returns a module that has been imported, or None; waits where another thread is importing it, which may fail.

    `sys.modules` has a module from the beginning of its import on, when most of its names are still missing. In a
    process that was forked meanwhile the thread that would go on with it is not there: the module stays missing.
    """
    if name in sys.modules and not (name in _left_half and is_half(sys.modules[name])):
        with suppress(ImportError):
            return importlib.import_module(name)
    return None


_left_half: set[str] = set()
"""The modules that were being imported when this process was forked."""


def is_half(module: object) -> bool:
    """Tells whether a module is still being imported."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _note_halves() -> None:
    _left_half.update(name for name, module in list(sys.modules.items()) if is_half(module))


in_forked_process(_note_halves)
