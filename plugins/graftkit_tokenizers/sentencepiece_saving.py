"""Writes a SentencePiece tokenizer into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from graftkit.errors import RequestError

from graftkit_tokenizers.sentencepiece_files import MODEL_NAME

if TYPE_CHECKING:
    from graftkit_tokenizers.sentencepiece_tokenizer import SentencePieceTokenizer

__all__ = ["FORMATS", "save_files"]

FORMATS = ("sentencepiece",)


def save_files(tokenizer: SentencePieceTokenizer, folder: Path, format: str) -> None:
    """Writes them.

    Raises:
        RequestError: Another format.
    """
    if format not in FORMATS:
        raise RequestError(f"a SentencePiece model can't be saved as '{format}', only as {' or '.join(FORMATS)}")
    files = {**tokenizer.files.beside, MODEL_NAME: tokenizer.files.model}
    for name, data in files.items():
        (folder / name).write_bytes(data)
