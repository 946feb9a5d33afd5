"""`vocabulary.json`: what became of the base model's vocabulary, in a run's folder and in an adapter's."""

from __future__ import annotations

from pathlib import Path

from graftkit.errors import FolderError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular
from graftkit.interfaces.vocabulary import VocabularyChange

__all__ = ["VOCABULARY", "read_change"]

VOCABULARY = "vocabulary.json"
"""What becomes of the embeddings' rows: in a run's folder, and in every export that holds new rows alone."""


def read_change(folder: Path) -> VocabularyChange | None:
    """Returns what became of the base model's vocabulary, as a run or an export says; None where nothing did.

    Raises:
        FolderError: What it says is damaged.
    """
    path = folder / VOCABULARY
    if not path.is_file():
        return None
    try:
        return VocabularyChange.from_json(parse_json(read_regular(path)))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(path)) from None
