"""Limits that readers of several kinds of file share."""

from __future__ import annotations

__all__ = ["MOST_COLUMNS"]

MOST_COLUMNS = 4096
"""Columns of a table, with the fields of objects in it: far more than any of texts has. Looking at ever so many takes
seconds."""
