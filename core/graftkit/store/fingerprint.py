"""Hashes of data that lies in memory, and seeds derived from them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

__all__ = ["derived_seed", "fingerprint"]


def fingerprint(data: Any) -> str:
    """Returns the sha256, in hex, of data as JSON with sorted keys: the same on every machine."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def derived_seed(*parts: str | int) -> int:
    """Returns the seed of one random stream, 63 bits, from the run's seed and what the stream is for.

    Streams of different purposes never coincide, which sums and products of seed and index would allow.

    Example:
        >>> derived_seed(0, "dropout", 1) == derived_seed(0, "adapter", 1)
        False
    """
    return int(fingerprint(parts)[:16], 16) >> 1
