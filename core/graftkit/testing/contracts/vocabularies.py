"""Tiny vocabularies that changed, as initializers are given them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from graftkit.interfaces.initializer import MatrixRole, NewRows
from graftkit.interfaces.tokenizer import Tokenizer, TokenizerBackend
from graftkit.testing.contracts.samples import normal
from graftkit.testing.tiny import tiny_tokenizer_files

__all__ = ["ROWS", "TEXTS", "TinyChange", "with_parts"]

ROWS = 320
"""Rows of the base's matrix: more than its tokenizer has ids, as in many models."""

_MERGED = ("the", "then", " the", "there", "ing", " thing", "oo", "oooo", "äh", " noon", "other")

TEXTS = tuple(
    text.format(a=a, b=b)
    for a in ("thing", "noon", "ooze", "other", "sky")
    for b in ("then", "there", "at noon", "nothing")
    for text in ("the {a} is the other {a}, {b}.", "{b} the singing {a} äh went on and on", "oooo, {a}! and {b}?\n")
)
"""What the new tokens were learnt from."""


class TinyChange:
    """256 bytes and three special tokens, and what has been made of them.

    Args:
        backend: What loads a tokenizer.json.
        replaced: Whether the other tokenizer has the base's tokens under other ids; else it only has more of them.
    """

    def __init__(self, backend: TokenizerBackend, *, replaced: bool = False) -> None:
        files = tiny_tokenizer_files()
        self.base = _load(backend, files)
        spec = json.loads(files["tokenizer.json"])
        old = {token["id"]: token["content"] for token in spec["added_tokens"]}
        old |= {id: piece for piece, id in spec["model"]["vocab"].items()}
        pieces = [old[id] for id in sorted(old, reverse=replaced)]
        merges = _merges([_spelled(self.base, old, text) for text in _MERGED])
        pieces += [left + right for left, right in merges]
        self.tokenizer = _load(backend, {**files, "tokenizer.json": _changed(spec, pieces, merges)})
        ids = {piece: id for id, piece in old.items()}
        self.kept = {new: ids[piece] for new, piece in enumerate(pieces) if piece in ids}
        self.ids = tuple(new for new in range(len(pieces)) if new not in self.kept)
        self.parts = tuple(tuple(self.base.encode(self.tokenizer.decode([id]))) for id in self.ids)

    def rows(self, role: MatrixRole = "tied", hidden: int = 16, seed: int = 0) -> NewRows:
        """Returns a matrix of normal numbers that gets the new rows.

        Args:
            role: What the matrix is.
            hidden: How wide it is.
            seed: What it is drawn from.
        """
        weight = normal(ROWS, hidden, seed=seed)
        return NewRows(weight, role, self.ids, self.parts, self.base, self.tokenizer, dict(self.kept), TEXTS)


def with_parts(new: NewRows, *parts: Sequence[int]) -> NewRows:
    """Returns the same with only as many new tokens as these, which the base wrote so."""
    return replace(new, ids=new.ids[: len(parts)], parts=parts)


def _spelled(base: Tokenizer, pieces: dict[int, str], text: str) -> list[str]:
    return [pieces[id] for id in base.encode(text)]


def _merges(words: list[list[str]]) -> list[tuple[str, str]]:
    """Returns the pairs that join each word from its left, each once."""
    pairs = [("".join(word[:end]), word[end]) for word in words for end in range(1, len(word))]
    return list(dict.fromkeys(pairs))


def _changed(spec: dict[str, Any], pieces: list[str], merges: list[tuple[str, str]]) -> bytes:
    """Returns a tokenizer.json with these pieces in the order of their ids."""
    vocab = {piece: id for id, piece in enumerate(pieces)}
    added = sorted(({**token, "id": vocab[token["content"]]} for token in spec["added_tokens"]), key=lambda t: t["id"])
    model = {**spec["model"], "vocab": vocab, "merges": [list(pair) for pair in merges]}
    return json.dumps({**spec, "added_tokens": added, "model": model}).encode()


def _load(backend: TokenizerBackend, files: dict[str, bytes]) -> Tokenizer:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        return backend.load(Path(folder))
