"""Imports of libraries that remark on what concerns nobody."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_bitsandbytes_remark"]


@contextmanager
def without_bitsandbytes_remark() -> Iterator[None]:
    """Keeps bitsandbytes from telling, when it is imported, that an optional kernel package is missing.

    bitsandbytes is imported by peft, too.
    """
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)
