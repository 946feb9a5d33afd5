"""The interface of a SentencePiece tokenizer that its converters use."""

from __future__ import annotations

from typing import Protocol

from graftkit import Tokenizer

from graftkit_sentencepiece.files import SentencePieceFiles
from graftkit_sentencepiece.proto import ModelProto
from graftkit_sentencepiece.roles import AddedToken

__all__ = ["SentencePieceModel"]


class SentencePieceModel(Tokenizer, Protocol):
    """A tokenizer with the files and the model that it was read from.

    Attributes:
        files: The model's file and those beside it.
        proto: The model, read and checked.
    """

    files: SentencePieceFiles
    proto: ModelProto

    @property
    def added(self) -> tuple[AddedToken, ...]:
        """The tokens that the configuration adds beyond the model's pieces."""

    @property
    def tokenizer_json(self) -> bytes | None:
        """A tokenizer.json that gives the same ids, or None where there is none."""

    @property
    def json_refusal(self) -> str:
        """Why there is none."""
