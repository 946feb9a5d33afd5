"""Keeps standard output for a command's result."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

__all__ = ["output_to_stderr"]


@contextmanager
def output_to_stderr() -> Iterator[None]:
    """Sends whatever is printed meanwhile to standard error: by plugins, by C code, by child processes."""
    sys.stdout.flush()
    try:
        kept = os.dup(1)
    except OSError:  # the command was started without a standard output
        yield
        return
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
