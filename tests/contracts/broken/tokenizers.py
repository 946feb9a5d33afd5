"""Tokenizers that break one promise each and keep the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from graftkit.interfaces.tokenizer import Specials
from graftkit_tokenizers.huggingface import HuggingFaceBackend, HuggingFaceTokenizer


class LeakyTokenizer(HuggingFaceTokenizer):
    def encode(self, text: str, specials: Specials = "all") -> list[int]:
        return super().encode(text, specials)


class LeaksSpecials(HuggingFaceBackend):
    tokenizer: type[HuggingFaceTokenizer] = LeakyTokenizer

    def load(self, path: Path) -> HuggingFaceTokenizer:
        loaded = super().load(path)
        return self.tokenizer(loaded._files, str(path))


class LossyTokenizer(HuggingFaceTokenizer):
    def encode(self, text: str, specials: Specials = "none") -> list[int]:
        return super().encode(text.replace("\U0001f9ff", "?"), specials)


class LosesOneCharacter(LeaksSpecials):
    tokenizer = LossyTokenizer


class Piecewise:
    def __init__(self, tokenizer: HuggingFaceTokenizer) -> None:
        self.tokenizer = tokenizer

    def push(self, token: int) -> str:
        return self.tokenizer.decode([token])

    def finish(self) -> str:
        return ""


class PiecewiseTokenizer(HuggingFaceTokenizer):
    def stream_decoder(self) -> Any:
        return Piecewise(self)


class ShowsHalfCharacters(LeaksSpecials):
    tokenizer = PiecewiseTokenizer


class HashedTokenizer(HuggingFaceTokenizer):
    fingerprint = property(lambda self: str(hash("everything")))  # type: ignore[assignment]


class HashesWithASeed(LeaksSpecials):
    tokenizer = HashedTokenizer
