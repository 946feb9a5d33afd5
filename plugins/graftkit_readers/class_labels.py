"""The words for numbers in a table that `datasets` wrote: those of `ClassLabel`, which the table's schema keeps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftkit.interfaces.bounded_json import parse_json

__all__ = ["class_labels"]

_KEY = b"huggingface"
_MOST_VALUES = 1_000_000


def class_labels(schema: Any) -> dict[str, Sequence[str]]:
    """Returns the words for the numbers of columns, or of the lists in them, from 0 on.

    What is no such description is nothing that was said.

    Args:
        schema: The table's, of pyarrow.
    """
    try:
        found = parse_json((schema.metadata or {}).get(_KEY, b"{}"), _MOST_VALUES, unicode=True)
    except ValueError:
        return {}
    for key in ("info", "features"):
        found = found.get(key) if isinstance(found, Mapping) else None
    columns = found.items() if isinstance(found, Mapping) else ()
    words = {name: _words(feature) for name, feature in columns}
    return {name: names for name, names in words.items() if names}


def _words(feature: Any) -> Sequence[str]:
    """Returns the words of a column; none where it holds something else."""
    match feature:
        case {"_type": "ClassLabel", "names": [*names]} if all(
            isinstance(name, str) and name.strip() for name in names
        ):
            return names if len({*names}) == len(names) else ()  # as with `datasets`, each stands for one number
        case {"_type": "List" | "LargeList" | "Sequence", "feature": inner} | [inner]:
            return _words(inner)
    return ()
