"""bitsandbytes' functions."""

from __future__ import annotations

from graftkit.interfaces.quiet import without_bitsandbytes_remark

with without_bitsandbytes_remark():
    import bitsandbytes.functional as bnb

__all__ = ["bnb"]
