"""Counts the words of a corpus, as a tokenizer's normalizer and pre-tokenizer give them to its model."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit.tokenization.panics import no_panic
from graftkit.tokenization.splitting import split
from tokenizers import Tokenizer, trainers

from graftkit_tokenizers.tokenizer_json.added_in_text import AddedInText

__all__ = ["Words", "count_words"]

Json = dict[str, Any]

_NOTHING: Json = {"type": "WordLevel", "vocab": {}, "unk_token": ""}


@dataclass(frozen=True, slots=True)
class Words:
    """The words of a corpus.

    Attributes:
        counts: Word -> how often it occurs.
        added: Text of an added token -> how often it occurs.
    """

    counts: Mapping[str, int]
    added: Mapping[str, int]


def count_words(spec: Mapping[str, Any], texts: Iterable[str], *, where: str = "tokenizer") -> Words:
    """Counts the words of texts. Special tokens are ordinary text here.

    The library counts, several times faster than Python, and keeps each distinct word in memory once. A tokenizer
    without a pre-tokenizer whose pieces have `▁` only at the start is taken to split before each `▁`, which changes no
    ids.

    Args:
        spec: The tokenizer.json.
        texts: The corpus; iterated once.
        where: The tokenizer's folder, for errors.

    Raises:
        ModelError: The library fails, as at a regular expression that takes too long.
    """
    trainer = trainers.WordLevelTrainer(vocab_size=0, show_progress=False)
    added: Counter[str] = Counter()
    with no_panic(where):
        splitter = Tokenizer.from_str(json.dumps(_splitter(spec)))
        splitter.train_from_iterator(_between(texts, spec, added), trainer)
    counts = json.loads(trainer.__getstate__())["WordLevelTrainer"]["words"]
    return Words({word: count for word, count in counts.items() if word}, added)


def _splitter(spec: Mapping[str, Any]) -> Json:
    """Returns a tokenizer.json that only normalizes and splits text."""
    bare = {**spec, "model": _NOTHING, "added_tokens": [], "post_processor": None, "decoder": None}
    if not spec.get("pre_tokenizer") and not _crosses_words(spec["model"]["vocab"]):
        bare["pre_tokenizer"] = split("▁+[^▁]*|[^▁]+")
    return bare


def _crosses_words(vocab: Mapping[str, int] | Sequence[tuple[str, float]]) -> bool:
    """Tells whether a piece has `▁` after another character, or no piece has `▁` at all."""
    pieces = list(vocab) if isinstance(vocab, Mapping) else [piece for piece, _ in vocab]
    return not any("▁" in piece for piece in pieces) or any("▁" in piece.lstrip("▁") for piece in pieces)


def _between(texts: Iterable[str], spec: Mapping[str, Any], found: Counter[str]) -> Iterator[str]:
    """Yields the text between added tokens, and counts those."""
    plain = (token for token in spec.get("added_tokens", []) if not token.get("special"))
    tokens = AddedInText(plain, lowers=_lowers(spec))
    for text in texts:
        start = 0
        for place in tokens.find(text):
            found[place.token] += 1
            yield text[start : place.start]
            start = place.end
        yield text[start:]


def _lowers(spec: Mapping[str, Any]) -> bool:
    normalizer = json.dumps(spec.get("normalizer"))
    return '"lowercase": true' in normalizer or '"Lowercase"' in normalizer
