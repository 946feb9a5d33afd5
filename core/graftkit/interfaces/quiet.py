"""Keeps libraries' remarks that concern nobody from the user."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["BITSANDBYTES", "errors_alone"]

BITSANDBYTES = "bitsandbytes.backends.cpu.ops"
"""The logger that tells, when bitsandbytes is imported, that an optional kernel package is missing. peft imports it."""


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
