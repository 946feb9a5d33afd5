"""BPE over characters: ▁ for spaces, byte fallback for rare characters."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graftkit.errors import RequestError
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN
from graftkit.tokenization.byte_alphabet import BYTE_PIECES
from graftkit.tokenization.splitting import split
from graftkit.tokenization.tokenizer_json import bpe_model, bytes_decoder, tokenizer_json
from graftkit.tokenization.training_spec import check_room, checked_spec
from tokenizers.trainers import BpeTrainer

from graftkit_tokenizers.config import BpeConfig
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.train.characters import CharacterCounts
from graftkit_tokenizers.train.learning import check_names, files_of, learn, merges_of
from graftkit_tokenizers.train.pruning import pruned

__all__ = ["BpeBackend"]

_WORDS = (
    r"▁?[\p{L}\p{M}]+|▁?\p{N}{1,3}|▁?[^\s▁\p{L}\p{M}\p{N}]+"
    r"|[\s▁]*[\r\n]+|[\s▁]+(?![^\s▁])|[\s▁]+"
)

_SPARE = 8192
"""Tokens learnt beyond the requested size, so that it is still reached after rare characters are removed."""


class BpeBackend(HuggingFaceBackend):
    """Trains BPE over characters. Every text without ▁ is decoded as it was; ▁ becomes a space.

    Args:
        config: How text is split, and how frequent characters and pairs must be.
    """

    config_class = BpeConfig
    formats = ("huggingface",)
    model_type = "BPE"

    def __init__(self, config: BpeConfig | None = None) -> None:
        self.config = config or BpeConfig()

    def train(self, texts: Iterable[str], spec: TrainingSpec) -> HuggingFaceTokenizer:
        """Learns merges, the most frequent pair first, until the vocabulary is full.

        Raises:
            RequestError: The vocabulary can't hold the special tokens, 256 bytes and the characters, or there is
                no text.
        """
        check_room(checked_spec(spec), 257, "the 256 bytes and a character")
        check_names(spec.special_tokens, BYTE_PIECES)
        fixed = (*spec.special_tokens, *BYTE_PIECES)
        parts = _parts(self.config.split)
        counts = CharacterCounts()
        all_stay = self.config.coverage == 1
        trainer = BpeTrainer(
            vocab_size=spec.vocab_size + (0 if all_stay else _SPARE),
            min_frequency=self.config.min_frequency,
            special_tokens=list(fixed),
            max_token_length=LONGEST_TOKEN,
            show_progress=False,
        )
        learnt = learn(parts, trainer, texts if all_stay else counts.reading(texts))
        vocab, merges = learnt.get_vocab(with_added_tokens=False), merges_of(learnt)
        rare = counts.rare(self.config.coverage, _SPARE) - {"▁"}
        self._check_alphabet(spec, len(vocab) - len(merges) - len(rare))
        kept = pruned(vocab, merges, reserved=fixed, dropped=rare, size=spec.vocab_size)
        return HuggingFaceTokenizer(
            files_of({**parts, "model": bpe_model(*kept, byte_fallback=True)}, spec), trainable=True
        )

    def _check_alphabet(self, spec: TrainingSpec, needed: int) -> None:
        if needed > spec.vocab_size:
            raise RequestError(
                f"a vocabulary of {spec.vocab_size} is too small for the special tokens, 256 bytes and the characters "
                f"that make up {self.config.coverage:.2%} of the texts",
                hint=f"Ask for {needed} or more, or lower `coverage`: the characters left out become bytes.",
            )


def _parts(words: str) -> dict[str, Any]:
    """Returns the tokenizer.json with an empty model."""
    spaces = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "never", "split": words == "spaces"}
    pre_tokenizer = spaces if words == "spaces" else {"type": "Sequence", "pretokenizers": [spaces, split(_WORDS)]}
    return tokenizer_json(
        bpe_model({}, [], byte_fallback=True), pre_tokenizer=pre_tokenizer, decoder=bytes_decoder("▁")
    )
