"""Keeps libraries' remarks that concern nobody from the user."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["errors_alone", "importing_bitsandbytes"]

_KERNELS = "kernels"
"""A package that fetches compiled code from the hub, and loads it."""


@contextmanager
def importing_bitsandbytes() -> Iterator[None]:
    """Stands around whatever may be the first import of bitsandbytes, as that of peft.

    On processors with bfloat16 bitsandbytes asks the package `kernels`, where that is installed, for code from the hub
    as soon as it is imported, and tells where it isn't. Nobody asked for that: the package is not found meanwhile.
    """
    before = sys.modules.get(_KERNELS)
    sys.modules[_KERNELS] = None  # type: ignore[assignment]  # as Python writes what can't be imported
    try:
        with errors_alone("bitsandbytes.backends.cpu.ops"):
            yield
    finally:
        if before is None:
            sys.modules.pop(_KERNELS, None)  # another thread that stood here may have done so
        else:
            sys.modules[_KERNELS] = before


@contextmanager
def errors_alone(logger: str) -> Iterator[None]:
    """Lets a logger tell nothing but errors for a while.

    Args:
        logger: Its name.
    """
    log = logging.getLogger(logger)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
