"""Tokens of one character for the most frequent ones, byte fallback for the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.tokenization.byte_alphabet import BYTE_PIECES
from graftkit.tokenization.tokenizer_json import bpe_model, bytes_decoder, tokenizer_json
from graftkit.tokenization.training_spec import check_room, checked_spec

from graftkit_tokenizers.config import CharacterConfig
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.train.characters import CharacterCounts
from graftkit_tokenizers.train.learning import check_names, files_of, some

__all__ = ["CharacterBackend"]


class CharacterBackend(HuggingFaceBackend):
    """Trains tokenizers of characters: BPE without merges, with byte fallback.

    Args:
        config: How frequent a character must be.
    """

    config_class = CharacterConfig
    formats = ("huggingface",)
    model_type = "BPE"

    def __init__(self, config: CharacterConfig | None = None) -> None:
        self.config = config or CharacterConfig()

    def train(self, texts: Iterable[str], spec: TrainingSpec) -> HuggingFaceTokenizer:
        """Gives the most frequent characters a token each until the vocabulary is full.

        Raises:
            RequestError: The vocabulary can't hold the special tokens, 256 bytes and a character, or there is no text.
        """
        check_room(checked_spec(spec), 257, "the 256 bytes and a character")
        check_names(spec.special_tokens, BYTE_PIECES)
        counts = CharacterCounts()
        deque(counts.reading(some(texts)), maxlen=0)
        fixed = (*spec.special_tokens, *BYTE_PIECES)
        enough = (c for c, count in counts.most_common() if count >= self.config.min_frequency and c not in fixed)
        pieces = [*fixed, *enough][: spec.vocab_size]
        model = bpe_model({piece: id for id, piece in enumerate(pieces)}, [], byte_fallback=True)
        return HuggingFaceTokenizer(files_of(tokenizer_json(model, decoder=bytes_decoder()), spec), trainable=True)
