"""The files of a SentencePiece tokenizer: the `.model` and what Hugging Face repositories keep beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.regular_file import open_regular, read_own_file
from graftkit.tokenization.side_files import SIDE_FILES, additional_templates, object_in
from graftkit.tokenization.side_files import read_files as read_side_files

from graftkit_sentencepiece.proto import SIZE_LIMIT, looks_like_proto

__all__ = ["MODEL_NAME", "SentencePieceFiles", "find_model", "read_files"]

MODEL_NAME = "tokenizer.model"
"""The file name under which a model is saved, as in Llama's repositories."""

_NAMES = (MODEL_NAME, "spiece.model", "sentencepiece.bpe.model")
_SNIFFED = 4096


@dataclass(frozen=True)
class SentencePieceFiles:
    """A tokenizer's files.

    Attributes:
        model: The `.model`'s bytes.
        beside: The other files' bytes by name.
        where: The file or folder, for errors.
    """

    model: bytes
    beside: Mapping[str, bytes] = field(default_factory=dict)
    where: str = "tokenizer"

    def json(self, name: str) -> dict[str, Any]:
        """Returns a file's object, empty where there is no such file.

        Raises:
            ModelError: It is no JSON object.
        """
        return object_in(self.beside, name, self.where)


def find_model(path: Path) -> Path | None:
    """Returns the SentencePiece model that a path refers to: the file itself, or the one in a folder.

    Files of other programs may have the same name, so the first bytes are checked too.

    Args:
        path: A file or folder.

    Returns:
        The file; None where there is none, or several `*.model` files without a usual name.
    """
    if path.is_file():
        return path if _is_model(path) else None
    if not path.is_dir():
        return None
    named = [path / name for name in _NAMES if _is_model(path / name)]
    if named:
        return named[0]
    others = [file for file in sorted(path.glob("*.model")) if _is_model(file)]
    return others[0] if len(others) == 1 else None


def _is_model(path: Path) -> bool:
    try:
        with open_regular(path) as file:
            return looks_like_proto(file.read(_SNIFFED))
    except OSError:
        return False


def read_files(path: Path) -> SentencePieceFiles:
    """Reads the files of a folder, or of the model's folder.

    Raises:
        ModelError: There is no model, or a file can't be read or is larger than any can be.
    """
    model = find_model(path)
    if model is None:
        hint = f"Give the `.model` file, or a folder with {' or '.join(_NAMES)} or just one *.model in it."
        raise ModelError("there is no SentencePiece model", where=str(path), hint=hint)
    kept = read_side_files(model.parent, (*SIDE_FILES, *additional_templates(model.parent)))
    try:
        return SentencePieceFiles(read_own_file(model, SIZE_LIMIT), kept, str(path))
    except OSError as error:
        raise ModelError(f"can't be read: {error.strerror}", where=str(model)) from error
