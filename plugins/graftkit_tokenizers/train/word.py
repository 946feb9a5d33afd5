"""A token a word, the most frequent ones; the others are unknown."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN
from graftkit.tokenization.tokenizer_json import tokenizer_json
from graftkit.tokenization.training_spec import check_room, checked_spec, with_unknown
from tokenizers.trainers import WordLevelTrainer

from graftkit_tokenizers.config import WordConfig
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.train.learning import files_of, learn

__all__ = ["WordBackend"]


class WordBackend(HuggingFaceBackend):
    """Trains tokenizers of whole words.

    Args:
        config: How text is split into words, and how frequent a word must be.
    """

    config_class = WordConfig
    formats = ("huggingface",)
    model_type = "WordLevel"

    def __init__(self, config: WordConfig | None = None) -> None:
        self.config = config or WordConfig()

    def train(self, texts: Iterable[str], spec: TrainingSpec) -> HuggingFaceTokenizer:
        """Gives the most frequent words a token each until the vocabulary is full.

        A token for unknown words is added to the special ones where none has that role.

        Raises:
            RequestError: The vocabulary can't hold the special tokens and a word, or there is no text.
        """
        spec = with_unknown(checked_spec(spec))
        check_room(spec, 1, "a word")
        parts = self._parts(spec.roles["unk"])
        trainer = WordLevelTrainer(
            vocab_size=spec.vocab_size + len(spec.special_tokens),  # words that spell special tokens are left out
            min_frequency=self.config.min_frequency,
            show_progress=False,
        )
        learnt = learn(parts, trainer, texts).get_vocab(with_added_tokens=False)
        words = (word for word in sorted(learnt, key=learnt.__getitem__) if len(word) <= LONGEST_TOKEN)
        pieces = [*spec.special_tokens, *(word for word in words if word not in spec.special_tokens)][: spec.vocab_size]
        model = {**parts["model"], "vocab": {piece: id for id, piece in enumerate(pieces)}}
        return HuggingFaceTokenizer(files_of({**parts, "model": model}, spec), trainable=True)

    def _parts(self, unknown: str) -> dict[str, Any]:
        """Returns the tokenizer.json with an empty model."""
        return tokenizer_json(
            {"type": "WordLevel", "vocab": {}, "unk_token": unknown},
            normalizer={"type": "Lowercase"} if self.config.lowercase else None,
            pre_tokenizer={"type": "Whitespace" if self.config.split == "words" else "WhitespaceSplit"},
        )
