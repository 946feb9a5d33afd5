"""`vocabulary.json`: what became of the base model's vocabulary, in a run's folder and in an adapter's."""

from __future__ import annotations

from pathlib import Path

from graftkit.errors import FolderError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.regular_file import read_regular
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.interfaces.vocabulary_limits import MOST_IDS, MOST_PARTS

__all__ = ["VOCABULARY", "read_change"]

VOCABULARY = "vocabulary.json"
"""What becomes of the embeddings' rows: in a run's folder, and in every export that holds new rows alone."""

_MOST_VALUES = MOST_PARTS + 11 * MOST_IDS
"""Values of the file, as `parse_json` counts them: of each id itself, its list of parts, and what is told of its token
beside; seven for that one."""

_MOST_BYTES = 128 << 20
"""What as many values take, indented, with the texts of 400,000 new tokens: about 90 MB."""


def read_change(folder: Path) -> VocabularyChange | None:
    """Returns what became of the base model's vocabulary, as a run or an export says; None where nothing did.

    Raises:
        FolderError: It can't be read, or what it says is damaged.
    """
    path = folder / VOCABULARY
    try:
        return VocabularyChange.from_json(parse_json(read_regular(path, _MOST_BYTES), _MOST_VALUES))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise FolderError(f"it can't be read: {error.strerror}", where=str(path)) from None
    except (KeyError, TypeError, ValueError) as error:
        raise FolderError(f"it is damaged: {error}", where=str(path)) from None
