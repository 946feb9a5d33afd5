"""Encodes plain texts in batches, and cuts them into examples."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.store.token_store import TokenStore
from graftkit.tokenization.text_search import TextSearch

__all__ = ["PlainTexts"]

_SAMPLES = ("a", " a", "a ", " a ", "\na\n", "\t", "A1", "1", ".", "<", "é", "日本", "🎉", "a b\n\nc", "_", "'s", "▁")
"""Texts with which `bos` and `eos` may change other tokens, by stripping white space or by a space at the start."""


Reference = Callable[[str], tuple[list[int], list[float]]]


class PlainTexts:
    """Encodes plain texts, of which every token but the first is in the loss.

    Attributes:
        start: The id that each text starts with, if any.
        end: The id that each text ends with, if any.
        alone: Whether the ids between those two are the text's own. They are not where only the start of the whole
            gets a leading space.

    Args:
        tokenizer: The tokenizer.
        start: The token that each text starts with, as name and id, or None.
        end: The token that each text ends with, or None.
        max_length: The most tokens of an example.
        reference: Returns the ids of one text and their loss mask.
        parsed: Special tokens that are read out of texts; a text that spells one is left to the reference.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        start: tuple[str, int] | None,
        end: tuple[str, int] | None,
        max_length: int,
        reference: Reference,
        parsed: Iterable[str] = (),
    ) -> None:
        self._tokenizer = tokenizer
        self._names = ("" if start is None else start[0], "" if end is None else end[0])
        self.start = [] if start is None else [start[1]]
        self.end = [] if end is None else [end[1]]
        self._max_length = max_length
        self._parsed = TextSearch(parsed)
        known = [(text, self._plainly(*reference(text))) for text in _SAMPLES]
        self.alone = all(self._encode_alone([text]) == [ids] for text, ids in known)
        self._whole = not self.alone and all(self._encode_whole([text]) == [ids] for text, ids in known)

    def _plainly(self, ids: list[int], loss_weights: list[float]) -> list[int] | None:
        """Returns the ids if all but the first special one are in the loss, else None."""
        plain = [0.0] * len(self.start) + [1.0] * (len(ids) - len(self.start))
        return ids if loss_weights == plain else None

    def takes(self, text: str) -> bool:
        """Tells whether `encode` encodes a text as the reference does."""
        if self._parsed.next(text, 0) is not None:
            return False
        return self.alone or (self._whole and not any(name in text for name in self._tokenizer.special_tokens))

    def encode(self, texts: Sequence[str]) -> tuple[TokenStore, list[int]]:
        """Returns the examples of several texts, and how many each text has."""
        windows: list[NDArray[np.uint32]] = []
        firsts, counts = [], []
        for ids in self._encode_alone(texts) if self.alone else self._encode_whole(texts):
            found = self._cut(ids)
            firsts += [len(windows)] if found else []
            counts.append(len(found))
            windows += found
        return self._store(windows, firsts), counts

    def _encode_alone(self, texts: Sequence[str]) -> list[list[int]]:
        return [[*self.start, *ids, *self.end] for ids in self._tokenizer.encode_batch(texts)]

    def _encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        start, end = self._names
        return self._tokenizer.encode_batch([f"{start}{text}{end}" for text in texts], "all")

    def windows(self, ids: Sequence[int], *, begins: bool) -> TokenStore:
        """Returns the examples of the last ids of a text.

        Args:
            ids: The tokens, special ones included.
            begins: Whether the first of them is the text's first.
        """
        return self._store(self._cut(ids), [0] if begins else [])

    def full_windows(self, ids: Sequence[int], *, begins: bool) -> tuple[TokenStore, list[int]]:
        """Returns the examples of `max_length`, and the remaining ids, to which the text's next ids are appended."""
        used = max(0, (len(ids) - 1) // (self._max_length - 1)) * (self._max_length - 1)
        return self.windows(ids[: used + 1] if used else (), begins=begins), list(ids[used:])

    def _cut(self, ids: Sequence[int]) -> list[NDArray[np.uint32]]:
        """Cuts ids into examples, each of which begins with the last id of the one before."""
        sequence = np.array(ids, np.uint32)
        return [sequence[at : at + self._max_length] for at in range(0, len(sequence) - 1, self._max_length - 1)]

    def _store(self, windows: Sequence[NDArray[np.uint32]], firsts: Sequence[int]) -> TokenStore:
        """Stores examples; `firsts` are the indices of those that begin a text."""
        offsets = np.zeros(len(windows) + 1, np.int64)
        np.cumsum([len(window) for window in windows], out=offsets[1:])
        ids = np.concatenate([np.zeros(0, np.uint32), *windows])
        weights = np.ones(len(ids), np.float32)
        weights[offsets[:-1]] = 0
        prompt_lengths = np.zeros(len(windows), np.int64)
        if windows and firsts:
            prompt_lengths[list(firsts)] = len(self.start)
        return TokenStore.from_arrays(ids=ids, loss_weight=weights, offsets=offsets, prompt_lengths=prompt_lengths)
