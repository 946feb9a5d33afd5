"""BPE over bytes, as in GPT-2 and most models since; with a vocabulary of 256 a plain byte tokenizer."""

from __future__ import annotations

from collections.abc import Iterable

from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit.tokenization.splitting import pre_tokenizer
from graftkit.tokenization.tokenizer_json import bpe_model, byte_level_decoder, tokenizer_json
from graftkit.tokenization.training_spec import check_room, checked_spec
from tokenizers.trainers import BpeTrainer

from graftkit_tokenizers.config import ByteLevelConfig
from graftkit_tokenizers.formats.files import Options
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer
from graftkit_tokenizers.tokenizer_json.splitting import named
from graftkit_tokenizers.train.learning import check_names, files_of, learn, merges_of
from graftkit_tokenizers.train.pruning import pruned

__all__ = ["ByteLevelBackend"]


class ByteLevelBackend(HuggingFaceBackend):
    """Trains BPE over bytes: every text is decoded as it was.

    Args:
        config: How text is split, and how frequent pairs must be.
    """

    config_class = ByteLevelConfig
    formats = ("huggingface", "gpt2", "tiktoken")
    model_type = "BPE"

    def __init__(self, config: ByteLevelConfig | None = None) -> None:
        self.config = config or ByteLevelConfig()
        self.options = Options(pattern=self.config.pattern)

    def train(self, texts: Iterable[str], spec: TrainingSpec) -> HuggingFaceTokenizer:
        """Learns merges, the most frequent pair first, until the vocabulary is full.

        Raises:
            RequestError: The vocabulary can't hold the special tokens and 256 bytes, or there is no text.
        """
        check_room(checked_spec(spec), 256, "the 256 bytes")
        check_names(spec.special_tokens, byte_alphabet())
        parts = tokenizer_json(
            bpe_model({}, []),
            pre_tokenizer=pre_tokenizer(named(self.config.pattern or "gpt2")),
            decoder=byte_level_decoder(),
        )
        trainer = BpeTrainer(
            vocab_size=spec.vocab_size,
            min_frequency=self.config.min_frequency,
            special_tokens=list(spec.special_tokens),
            initial_alphabet=list(byte_alphabet()),
            max_token_length=LONGEST_TOKEN,
            show_progress=False,
        )
        learnt = learn(parts, trainer, texts)
        vocab, merges = learnt.get_vocab(with_added_tokens=False), merges_of(learnt)
        kept = pruned(vocab, merges, reserved=spec.special_tokens, size=spec.vocab_size)
        return HuggingFaceTokenizer(files_of({**parts, "model": bpe_model(*kept)}, spec), trainable=True)
