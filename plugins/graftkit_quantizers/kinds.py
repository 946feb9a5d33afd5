"""The kinds of stored weights that the quantizers here have a weight of their own for; imports nothing."""

from __future__ import annotations

__all__ = ["BITSANDBYTES_INT8", "BITSANDBYTES_NF4", "OWN_NF4"]

OWN_NF4 = "graftkit-nf4"
"""A `StoredWeight` that has the tensors and the meta of an `Nf4Weight`."""

BITSANDBYTES_NF4 = "bitsandbytes-nf4"
"""One that has the tensors of bitsandbytes' own files: `codes` and `absmax` flat, the levels in its meta."""

BITSANDBYTES_INT8 = "bitsandbytes-int8"
"""One that has the tensors of an `Int8Weight`: bitsandbytes calls `absmax` SCB."""
