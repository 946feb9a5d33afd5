"""Digests of records' contents."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from graftkit.corpus.stretches import read_stretches
from graftkit.errors import DataError
from graftkit.interfaces.samples import LongText, Sample

__all__ = ["DIGEST", "digest_sample", "digest_text"]

SIZE = 16
DIGEST = np.dtype(f"S{SIZE}")
"""The first 16 bytes of a sha256; collisions of different records are negligible."""


def digest_sample(sample: Sample, seed: int | None = None) -> tuple[bytes, bytes]:
    """Returns a record's digest, and the digest that orders it in the random draw of holdout records.

    Both are the first bytes of `graftkit.store.fingerprint`, of the record's key and of `[seed, key]`; the second is
    empty without a seed.

    Raises:
        DataError: A long text is not UTF-8, or empty; or the record holds what no UTF-8 or no JSON says.
    """
    try:
        parts = _long(sample) if isinstance(sample, LongText) else (_json(sample.key()),)
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"the record's text is no text, or its tools are no JSON: {error}", where=sample.where
        ) from None
    return _digests(parts, seed)


def digest_text(text: str, seed: int | None = None) -> tuple[bytes, bytes]:
    """Returns the same of a text that some records have in common, by which they are drawn together."""
    return _digests((_json(text),), seed)


def _digests(parts: Iterable[bytes], seed: int | None) -> tuple[bytes, bytes]:
    alone, placed = hashlib.sha256(), hashlib.sha256(f"[{seed},".encode())
    for part in parts:
        alone.update(part)
        if seed is not None:
            placed.update(part)
    placed.update(b"]")
    return alone.digest()[:SIZE], placed.digest()[:SIZE] if seed is not None else b""


def _json(key: Any) -> bytes:
    return json.dumps(key, ensure_ascii=False, separators=(",", ":")).encode()


def _long(sample: LongText) -> Iterator[bytes]:
    """Yields the text as JSON, in parts."""
    blank = True
    yield b'"'
    for stretch in read_stretches(sample.source):
        blank = blank and not stretch.strip()
        yield _json(stretch)[1:-1]
    yield b'"'
    if blank:
        raise DataError("the file is empty", where=sample.where)
