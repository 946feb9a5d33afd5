"""Encodes large batches with fastokens, once it was found to give the same ids with this tokenizer."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import accumulate
from typing import Any

from graftkit_tokenizers.tokenizer_json.fast_proof import proof_texts

__all__ = ["FastEncoder"]

BIG = 1 << 16
"""Characters from which on a batch is large."""

ENOUGH = 1 << 21
"""Characters in large batches after which the comparison, which costs as much as encoding these, may pay."""

_TOGETHER = 500
"""Texts that are compared in one call."""

_SAMPLE = 1 << 18
"""Characters of the first batch that are compared too."""

Exact = Callable[[Sequence[str]], list[list[int]]]
Hide = Callable[[Mapping[str, Any]], Mapping[str, Any]]


class FastEncoder:
    """Encodes batches with fastokens where it gives the same ids as the `tokenizers` library.

    Once large batches, of `BIG` characters or more, add up to `ENOUGH` characters, both are compared on all of Unicode,
    every piece of the vocabulary, runs of white space, random texts and the first batch. Where fastokens differs, is
    not installed or can't read the tokenizer, it is not used. A text with a byte that the vocabulary lacks is always
    encoded by `tokenizers`.

    A copied or unpickled encoder compares anew. A forked process uses `tokenizers`: fastokens' threads do not survive
    a fork.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tried = False
        self._seen = 0
        self._process = os.getpid()
        self._encoder: Any = None
        self._missing = b""

    def __reduce__(self) -> tuple[type[FastEncoder], tuple[()]]:
        return FastEncoder, ()

    @property
    def name(self) -> str:
        """The library that large batches are encoded with: "tokenizers", or fastokens with its version."""
        return f"fastokens {version('fastokens')}" if self._ready() else "tokenizers"

    def encode_batch(
        self, texts: Sequence[str], exact: Exact, spec: Mapping[str, Any], hide: Hide, missing: bytes
    ) -> list[list[int]]:
        """Returns the ids that `exact` gives, by fastokens where it is in use.

        Args:
            texts: The texts.
            exact: Encodes with `tokenizers`.
            spec: The tokenizer.json.
            hide: Returns the tokenizer.json without special tokens that `exact` uses.
            missing: The bytes that the vocabulary lacks.
        """
        if not self._tried and self._is_time(texts) and self._lock.acquire(blocking=False):
            try:
                self._try(texts, exact, spec, hide, missing)
            finally:
                self._lock.release()
        if not self._ready():
            return exact(texts)
        return self._encode(texts, exact)

    def _is_time(self, texts: Sequence[str]) -> bool:
        size = sum(map(len, texts))
        self._seen += size if size >= BIG else 0
        return size >= BIG and self._seen >= ENOUGH

    def _ready(self) -> bool:
        return self._encoder is not None and self._process == os.getpid()

    def _try(self, texts: Sequence[str], exact: Exact, spec: Mapping[str, Any], hide: Hide, missing: bytes) -> None:
        if self._tried:
            return
        self._missing, self._process = missing, os.getpid()
        encoder = _build(hide(spec))
        if encoder is not None:
            checked = map(self._without_missing, [*proof_texts(spec), *_beginning(texts)])
            self._encoder = encoder if self._agrees(encoder, exact, list(checked)) else None
        self._tried = True

    def _agrees(self, encoder: Any, exact: Exact, texts: Sequence[str]) -> bool:
        parts = (texts[at : at + _TOGETHER] for at in range(0, len(texts), _TOGETHER))
        return all(_ids(encoder, part) == exact(part) for part in parts)

    def _without_missing(self, text: str) -> str:
        """Returns a text without the characters of which the vocabulary lacks a byte."""
        return text.encode().translate(None, self._missing).decode("utf-8", "ignore")

    def _has_every_byte(self, text: str) -> bool:
        data = text.encode()
        return len(data.translate(None, self._missing)) == len(data)

    def _encode(self, texts: Sequence[str], exact: Exact) -> list[list[int]]:
        safe = [place for place, text in enumerate(texts) if not self._missing or self._has_every_byte(text)]
        found = _ids(self._encoder, [texts[place] for place in safe])
        if found is None:
            self._encoder = None
            return exact(texts)
        if len(safe) == len(texts):
            return found
        places = dict(zip(safe, found, strict=True))
        others = iter(exact([text for place, text in enumerate(texts) if place not in places]))
        return [places[place] if place in places else next(others) for place in range(len(texts))]


def _build(spec: Mapping[str, Any]) -> Any:
    """Returns fastokens' tokenizer, or None where it is not installed or can't read this one."""
    found: list[Any] = []
    with suppress(ImportError):
        from fastokens import Tokenizer

        _quietly(lambda: found.append(Tokenizer.from_json_str(json.dumps(spec))))
    return found[0] if found else None


def _ids(encoder: Any, texts: Sequence[str]) -> list[list[int]] | None:
    found: list[list[int]] = []
    _quietly(lambda: found.extend(encoding.ids for encoding in encoder.encode_batch(list(texts))))
    return found if len(found) == len(texts) else None


def _quietly(do: Callable[[], object]) -> None:
    """Calls a function and ignores every failure; a Rust panic is no `Exception`."""
    try:
        do()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return


def _beginning(texts: Sequence[str]) -> list[str]:
    sizes = accumulate(len(text) for text in texts)
    count = sum(size < _SAMPLE for size in sizes)
    return [*texts[:count], *(text[:_SAMPLE] for text in texts[count : count + 1])]
