"""bitsandbytes' functions."""

from __future__ import annotations

from graftkit.interfaces.quiet import BITSANDBYTES, errors_alone

with errors_alone(BITSANDBYTES):
    import bitsandbytes.functional as bnb

__all__ = ["bnb"]
