"""The backend of SentencePiece models: reads, trains and extends them with the sentencepiece library.

The library is imported when it is used, so that `accepts` works where it is not installed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from graftkit.errors import RequestError
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec, TrainingSpec

from graftkit_sentencepiece.config import SentencePieceConfig
from graftkit_sentencepiece.files import find_model, read_files
from graftkit_sentencepiece.saving import FORMATS

if TYPE_CHECKING:
    from graftkit_sentencepiece.tokenizer import SentencePieceTokenizer

__all__ = ["SentencePieceBackend"]


class SentencePieceBackend:
    """Reads `.model` files.

    Args:
        config: How a new model is trained; None for the defaults.
    """

    formats = FORMATS

    def __init__(self, config: SentencePieceConfig | None = None) -> None:
        self._config = config or SentencePieceConfig()

    def accepts(self, path: Path) -> bool:
        """Tells whether the path is a SentencePiece model or a folder with one."""
        return find_model(path) is not None

    def load(self, path: Path) -> SentencePieceTokenizer:
        """Reads a tokenizer from a folder, or from the `.model` in it.

        Raises:
            ModelError: There is none, or a file is malformed.
        """
        from graftkit_sentencepiece.tokenizer import SentencePieceTokenizer

        return SentencePieceTokenizer(read_files(path))

    def train(self, texts: Iterable[str], spec: TrainingSpec) -> SentencePieceTokenizer:
        """Learns a model with the library's own trainer; see `train_files`.

        Raises:
            RequestError: The specification can't be met, or there is nothing to learn from.
        """
        from graftkit_sentencepiece.tokenizer import SentencePieceTokenizer
        from graftkit_sentencepiece.training import train_files

        return SentencePieceTokenizer(train_files(texts, spec, self._config))

    def extend(self, tokenizer: Tokenizer, texts: Iterable[str], spec: ExtensionSpec) -> ExtensionPlan:
        """Adds pieces to a model; see `graftkit_sentencepiece.extension.extend`.

        Raises:
            RequestError: It is no SentencePiece model, its type can't be extended, or the texts hold nothing to learn.
        """
        from graftkit_sentencepiece.extension import extend
        from graftkit_sentencepiece.tokenizer import SentencePieceTokenizer

        if not isinstance(tokenizer, SentencePieceTokenizer):
            raise RequestError(
                f"a {type(tokenizer).__name__} is no SentencePiece model", hint="Load it with this backend."
            )
        return extend(tokenizer, texts, spec)
