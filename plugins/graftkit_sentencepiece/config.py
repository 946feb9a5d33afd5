"""The SentencePiece backend's own recipe fields: how it trains."""

from __future__ import annotations

from typing import Literal

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["SentencePieceConfig"]


class SentencePieceConfig(ProviderConfig):
    """How a new SentencePiece model is trained; the names are the library's own."""

    model_type: Literal["unigram", "bpe"] = Field(
        default="bpe", description="bpe, as Llama and Mistral have it, or unigram, as T5 and ALBERT have it"
    )
    byte_fallback: bool = Field(
        default=True, description="write characters without a piece as bytes instead of losing them"
    )
    character_coverage: float = Field(
        default=0.9995, ge=0.9, le=1.0, description="share of the texts' characters that get a piece of their own"
    )
    normalization: Literal["identity", "nfkc", "nfkc_cf", "nmt_nfkc", "nmt_nfkc_cf"] = Field(
        default="identity", description="how a text is normalized before it is split; all but identity lose some of it"
    )
    add_dummy_prefix: bool = Field(
        default=True, description="put a space before a text, so that its first word is encoded as any other"
    )
    remove_extra_whitespaces: bool = Field(
        default=False, description="remove leading, trailing and repeated spaces; indentation of code is lost"
    )
    split_digits: bool = Field(default=True, description="make every digit a token of its own")
    split_by_whitespace: bool = Field(default=True, description="let a space only start a token")
    split_by_unicode_script: bool = Field(default=True, description="let no token mix scripts, such as Latin and Han")
    allow_whitespace_only_pieces: bool = Field(
        default=True, description="let a run of spaces, such as an indentation, be one token"
    )
    max_sentencepiece_length: int = Field(default=16, ge=1, le=512, description="the most characters of a token")
    max_sentence_length: int = Field(
        default=65536, ge=64, le=2**24, description="the most bytes of a line; longer ones are cut at a space"
    )
