"""bitsandbytes' functions."""

from __future__ import annotations

from graftkit.interfaces.quiet import importing_bitsandbytes

with importing_bitsandbytes():
    import bitsandbytes.functional as bnb

__all__ = ["bnb"]
