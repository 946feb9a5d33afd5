"""Small tokenizers of the kinds in use, learnt from a few sentences."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from graftkit.tokenization.splitting import PATTERNS
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

__all__ = ["KINDS", "kind_of_tokenizer", "tokenizer_file"]

_SENTENCES = [
    "the quick brown fox jumps over the lazy dogs, while people watch: 1984 times!",
    "user: What is f(x)?\nassistant:  It's  naïve.\n\nUser: 12345 and 東京 is ünïcode\tor not.",
    "    def f(self):\n        return self.x + 1\n\n\n### user:\n###assistant:\nI don't know. \n \n ok",
]
_SPECIALS = ["<unk>", "<|im_start|>", "<|im_end|>"]


def _learnt(
    model: Any,
    trainer: Any,
    pre_tokenizer: Any = None,
    normalizer: Any = None,
    decoder: Any = None,
    added: Iterable[AddedToken] = (),
) -> Tokenizer:
    learner = Tokenizer(model)
    if normalizer is not None:
        learner.normalizer = normalizer
    if pre_tokenizer is not None:
        learner.pre_tokenizer = pre_tokenizer
    if decoder is not None:
        learner.decoder = decoder
    learner.train_from_iterator(_SENTENCES * 4, trainer)
    learner.add_tokens(list(added))
    return learner


def _bytewise(
    pre_tokenizer: Any, normalizer: Any = None, added: Iterable[AddedToken] = (), sentences: int = 400
) -> Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=sentences,
        special_tokens=_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    return _learnt(models.BPE(), trainer, pre_tokenizer, normalizer, decoders.ByteLevel(), added)


def _by(pattern: str, *before: Any) -> Any:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*before, pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level])


def _pieces(pre_tokenizer: Any, normalizer: Any) -> Tokenizer:
    trainer = trainers.BpeTrainer(vocab_size=250, special_tokens=_SPECIALS, show_progress=False)
    model = models.BPE(unk_token="<unk>", fuse_unk=True)
    return _learnt(model, trainer, pre_tokenizer, normalizer, decoders.Metaspace())


def _unigram() -> Tokenizer:
    trainer = trainers.UnigramTrainer(vocab_size=150, special_tokens=_SPECIALS, unk_token="<unk>", show_progress=False)
    splitter = pre_tokenizers.Metaspace("▁", "always")
    return _learnt(models.Unigram(), trainer, splitter, normalizers.NFKC(), decoders.Metaspace())


def _wordpiece() -> Tokenizer:
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", *_SPECIALS], show_progress=False)
    model = models.WordPiece(unk_token="[UNK]")
    return _learnt(
        model, trainer, pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(), decoders.WordPiece()
    )


def _spaces() -> Any:
    return normalizers.Replace(" ", "▁")


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level, gpt2": lambda: _bytewise(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "byte-level, digits first": lambda: _bytewise(
        pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        ),
    ),
    "byte-level, llama3": lambda: _bytewise(_by(PATTERNS["llama3"])),
    "byte-level, o200k": lambda: _bytewise(_by(PATTERNS["o200k"])),
    "byte-level, qwen2 with NFC": lambda: _bytewise(_by(PATTERNS["qwen2"]), normalizers.NFC()),
    "byte-level, numbers first": lambda: _bytewise(
        _by(PATTERNS["gpt2"], pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"))
    ),
    "byte-level, a space before": lambda: _bytewise(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "byte-level, whole text": lambda: _bytewise(
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), sentences=500
    ),
    "byte-level, looks behind": lambda: _bytewise(_by(r"(?<=a)\s?\p{L}+|\p{L}+|\s+|[^\s\p{L}]+")),
    "byte-level, matches a part": lambda: _bytewise(_by(r" ?\p{L}+")),
    "byte-level, looks far ahead": lambda: _bytewise(_by(r"a(?=.{0,3}b)|\p{L}|\s+(?=\p{L}\d)|[^a]")),
    "byte-level, added tokens": lambda: _bytewise(
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        added=[AddedToken("x <", normalized=False), AddedToken("<think>", normalized=False), AddedToken("  ")],
    ),
    "byte-level, added tokens that strip": lambda: _bytewise(
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        added=[AddedToken("<think>", rstrip=True), AddedToken("dog", single_word=True)],
    ),
    "pieces, metaspace": lambda: _pieces(pre_tokenizers.Metaspace("▁", "always"), None),
    "pieces, first metaspace": lambda: _pieces(pre_tokenizers.Metaspace("▁", "first"), normalizers.NFKC()),
    "pieces, whole text": lambda: _pieces(None, _spaces()),
    "pieces, spaces that are no more": lambda: _pieces(pre_tokenizers.Split(" ", "merged_with_previous"), _spaces()),
    "pieces, whole text after a space": lambda: _pieces(
        None, normalizers.Sequence([normalizers.Prepend("▁"), _spaces()])
    ),
    "unigram": _unigram,
    "wordpiece": _wordpiece,
}
"""Name -> what learns the tokenizer."""


@cache
def tokenizer_file(kind: str) -> bytes:
    """Returns the tokenizer.json of a kind."""
    spec = json.loads(KINDS[kind]().to_str())
    return json.dumps(spec, ensure_ascii=False).encode()


def kind_of_tokenizer(kind: str, template: str = "") -> HuggingFaceTokenizer:
    """Returns the tokenizer of a kind, with a chat template."""
    config = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"} | (
        {"chat_template": template} if template else {}
    )
    return HuggingFaceTokenizer(
        {"tokenizer.json": tokenizer_file(kind), "tokenizer_config.json": json.dumps(config).encode()}
    )
