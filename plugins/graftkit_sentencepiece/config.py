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
        default="identity", description="what is done to a text first; all but identity lose something of it"
    )
    add_dummy_prefix: bool = Field(
        default=True, description="put a space in front of a text, so that its first word is as any other"
    )
    remove_extra_whitespaces: bool = Field(
        default=False, description="drop spaces at the ends and all but one of a run, which no code survives"
    )
    split_digits: bool = Field(default=True, description="make every digit a token of its own")
    split_by_whitespace: bool = Field(default=True, description="let no token reach over a space")
    split_by_unicode_script: bool = Field(default=True, description="let no token mix scripts, such as Latin and Han")
    allow_whitespace_only_pieces: bool = Field(
        default=True, description="let a run of spaces, such as an indentation, be one token"
    )
    max_sentencepiece_length: int = Field(default=16, ge=1, le=512, description="characters of a token at most")
    max_sentence_length: int = Field(
        default=65536, ge=64, le=2**24, description="bytes of a line at most; longer ones are cut at a space"
    )
