"""Keeps what a library changes of the process, as it is imported and set up, from everything that comes after it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["process_kept"]


@contextmanager
def process_kept() -> Iterator[None]:
    """Takes back environment variables, which other runs and child processes would find, and Python's random state."""
    before, drawn = dict(os.environ), random.getstate()
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
        random.setstate(drawn)
