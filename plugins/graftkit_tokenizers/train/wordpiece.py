"""WordPiece, as in BERT: words of pieces, of which those inside a word start with ##."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN
from graftkit.tokenization.training_spec import check_room, checked_spec, with_unknown
from tokenizers import Tokenizer
from tokenizers.trainers import WordPieceTrainer

from graftkit_tokenizers.config import WordPieceConfig
from graftkit_tokenizers.formats.files import Options
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.tokenizer_json.wordpiece_parts import PREFIX, wordpiece_json
from graftkit_tokenizers.train.characters import CharacterCounts
from graftkit_tokenizers.train.learning import files_of, learn

__all__ = ["WordPieceBackend"]

# The library gives the pieces ##x of characters x ids in the order of a hash map, and merges equally frequent pairs by
# their ids. To make the result reproducible, all possible ##x are given to it beforehand, at 2 microseconds each.
# Chinese characters are never inside a word, and private-use characters are removed from texts. Past U+10000 these are
# the blocks that Unicode has assigned, and a few that it plans to assign.
_INSIDE_WORDS = (
    (0x21, 0x3400), (0x4DC0, 0x4E00), (0xA000, 0xAC00), (0xD7A4, 0xD800), (0xFB00, 0x12550), (0x12F90, 0x14680),
    (0x16100, 0x16140), (0x16800, 0x18E00), (0x1AFF0, 0x1B300), (0x1BC00, 0x1BCB0), (0x1CC00, 0x1DAB0),
    (0x1DF00, 0x1E960), (0x1EC70, 0x1EF00), (0x1F000, 0x1FC00),
)  # fmt: skip
_SYLLABLES = (0xAC00, 0xD7A4)
"""Korean syllables; where accents are removed, they are decomposed into their letters."""


def _elsewhere() -> Iterator[str]:
    """Yields the ranges past U+10000 that are not learnt, for a character class."""
    bounds = [code for start, end in _INSIDE_WORDS for code in (start, end) if code > 0x10000] + [sys.maxunicode + 1]
    yield from (f"{chr(end)}-{chr(start - 1)}" for end, start in zip(bounds[::2], bounds[1::2], strict=True))


_BEYOND = re.compile(f"[{''.join(_elsewhere())}]")


class WordPieceBackend(HuggingFaceBackend):
    """Trains WordPiece tokenizers. Characters beyond U+1FFFF and in unassigned blocks are not learnt.

    Args:
        config: BERT's normalization, and how frequent pairs and characters must be.
    """

    config_class = WordPieceConfig
    formats = ("huggingface", "wordpiece")
    model_type = "WordPiece"

    def __init__(self, config: WordPieceConfig | None = None) -> None:
        self.config = config or WordPieceConfig()
        self.options = Options(lowercase=self.config.lowercase)

    def train(self, texts: Iterable[str], spec: TrainingSpec) -> HuggingFaceTokenizer:
        """Learns pieces, the most frequent pair first, until the vocabulary is full.

        A token for unknown words is added to the special ones where none has that role.

        Raises:
            RequestError: The vocabulary can't hold the special tokens and the characters, or there is no text.
        """
        spec = with_unknown(checked_spec(spec))
        parts = wordpiece_json({}, spec.roles["unk"], lowercase=self.config.lowercase is not False)
        counts = CharacterCounts()
        read = texts if self.config.coverage == 1 else counts.reading(texts)
        fixed = list(dict.fromkeys([*spec.special_tokens, *_inside_words(self.config)]))
        trainer = WordPieceTrainer(
            vocab_size=spec.vocab_size + len(fixed),
            min_frequency=self.config.min_frequency,
            special_tokens=fixed,
            show_progress=False,
        )
        learnt = learn(parts, trainer, _within_planes(read)).get_vocab(with_added_tokens=False)
        words = _Words(parts)
        rare = counts.become(words.cleaned).rare(self.config.coverage, len(learnt))
        pieces = _pieces(learnt, len(fixed), words, rare)
        alphabet = sum(len(piece.removeprefix(PREFIX)) == 1 for piece in pieces)
        check_room(spec, alphabet, f"{alphabet} pieces of one character")
        kept = [*spec.special_tokens, *(piece for piece in pieces if piece not in spec.special_tokens)]
        model = {**parts["model"], "vocab": {piece: id for id, piece in enumerate(kept[: spec.vocab_size])}}
        return HuggingFaceTokenizer(files_of({**parts, "model": model}, spec), trainable=True)


def _inside_words(config: WordPieceConfig) -> Iterator[str]:
    ranges = _INSIDE_WORDS if config.lowercase is not False else (*_INSIDE_WORDS, _SYLLABLES)
    return (PREFIX + chr(code) for start, end in ranges for code in range(start, end))


def _within_planes(texts: Iterable[str]) -> Iterator[str]:
    return (text if text.isascii() else _BEYOND.sub(" ", text) for text in texts)


class _Words:
    """The normalizer and pre-tokenizer of a tokenizer.json, asked about single characters."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._tokenizer = Tokenizer.from_str(json.dumps(parts))

    def may_hold(self, character: str) -> bool:
        """Tells whether a word may have this character after its first one."""
        text = self._tokenizer.normalizer.normalize_str("a" + character)
        return [word for word, _ in self._tokenizer.pre_tokenizer.pre_tokenize_str(text)] == ["a" + character]

    def cleaned(self, character: str) -> str:
        """Returns the normalized character."""
        return str(self._tokenizer.normalizer.normalize_str(character))


def _pieces(learnt: Mapping[str, int], fixed: int, words: _Words, rare: frozenset[str]) -> list[str]:
    """Returns every character, ## before those that words may hold, and what was learnt, in this order.

    Args:
        learnt: The library's vocabulary: the pieces that it was given, the characters of the texts, learnt pieces.
        fixed: How many pieces it was given.
        words: Which characters may be inside a word.
        rare: Characters that no piece may have.
    """
    ordered = sorted(learnt, key=learnt.__getitem__)[fixed:]
    found = [piece for piece in ordered if rare.isdisjoint(piece.removeprefix(PREFIX))]
    characters = [piece for piece in found if len(piece) == 1]
    inside = [PREFIX + character for character in characters if words.may_hold(character)]
    return [*characters, *inside, *(piece for piece in found if 1 < len(piece) <= LONGEST_TOKEN)]
