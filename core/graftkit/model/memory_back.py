"""Returns memory that is not needed any more to the operating system."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch

__all__ = ["give_freed_back", "give_memory_back"]


def give_memory_back() -> None:
    """Gives the system the memory of what nothing holds any more, for the next model or another process."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_freed_back()


def give_freed_back() -> None:
    """Gives the system what has been freed already and malloc keeps for later, which takes some milliseconds."""
    with suppress(AttributeError, OSError):  # glibc's alone
        ctypes.CDLL(None).malloc_trim(0)
