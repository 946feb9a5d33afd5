"""Counts what the rows of an Arrow table become as Python objects, before they are made.

Buffers say little of it: a list of nulls has no bytes however long it is, a text is held once by any number of views or
codes that stand for it, and a flag is one bit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

__all__ = ["not_read", "object_bytes"]

_VALUE = 32
"""Bytes that a value takes, with its place in the list, or the object, that holds it."""

_VIEW = 16
"""Bytes of a view, of which the first four are its text's length."""


def not_read(schema: Any, most_columns: int) -> str | None:
    """Returns why a table is not read; None if it is.

    It may have very many columns, two of one name, or one whose values can't be counted.

    Args:
        schema: The table's.
        most_columns: How many columns it may have; the fields of objects, and what lists hold, are columns, too.
    """
    from pyarrow import types

    uncounted = (types.is_union, types.is_list_view, types.is_large_list_view, types.is_run_end_encoded)
    twice = _twice(field.name for field in schema)
    if twice is not None:
        return f"two columns are called {twice!r}"
    left = [(field.name, field.type) for field in schema]
    found = 0
    while left:
        name, kind = left.pop()
        found += 1
        if found + len(left) > most_columns:
            return f"it has more than the {most_columns:,} columns that are read"
        if any(is_kind(kind) for is_kind in uncounted):
            return f"the column {name!r} is of the type {kind}, which is not read"
        if types.is_struct(kind) and (twice := _twice(field.name for field in kind)) is not None:
            return f"the column {name!r} has two fields called {twice!r}"
        if types.is_dictionary(kind):
            left.append((name, kind.value_type))
        else:
            left += [(name, kind.field(place).type) for place in range(kind.num_fields)]
    return None


def _twice(names: Iterable[str]) -> str | None:
    """Returns a name that stands there twice; None where there is none."""
    return next((name for name, count in Counter(names).items() if count > 1), None)


def object_bytes(column: Any) -> int:
    """Returns about how many bytes the values of an array take as Python objects, those within them included.

    Args:
        column: An array of a type that `not_read` has nothing against.
    """
    from pyarrow import compute, types

    kind = column.type
    own = _VALUE * len(column)
    if types.is_dictionary(kind):
        return own + _of_codes(column)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return own + sum(_view_lengths(column))
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return own + (compute.sum(compute.binary_length(column)).as_py() or 0)
    if types.is_map(kind):
        entries = column.values.slice(column.offsets[0].as_py(), column.offsets[-1].as_py() - column.offsets[0].as_py())
        return own + object_bytes(entries)
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return own + object_bytes(column.flatten())
    if types.is_struct(kind):
        return own + sum(map(object_bytes, column.flatten()))
    return own


def _of_codes(column: Any) -> int:
    """Returns the bytes of what codes stand for, each time that they do."""
    from pyarrow import compute, types

    values = column.dictionary
    kind = values.type
    if types.is_string(kind) or types.is_large_string(kind) or types.is_binary(kind) or types.is_large_binary(kind):
        return compute.sum(compute.binary_length(values).take(column.indices)).as_py() or 0
    if kind.num_fields or types.is_dictionary(kind):  # as if each code stood for all of them
        return len(column) * object_bytes(values)
    if types.is_string_view(kind) or types.is_binary_view(kind):
        return len(column) * max(_view_lengths(values), default=0)
    return 0


def _view_lengths(column: Any) -> list[int]:
    views = column.buffers()[1]
    if views is None:
        return []
    lengths = memoryview(views).cast("B")[_VIEW * column.offset : _VIEW * (column.offset + len(column))].cast("i")[::4]
    return [max(0, length) for length in lengths]
