"""Fields that recipes may give to readers."""

from __future__ import annotations

from graftkit import ProviderConfig
from pydantic import Field

__all__ = ["DelimitedConfig"]


class DelimitedConfig(ProviderConfig):
    """Fields of the reader `csv`."""

    delimiter: str | None = Field(
        default=None,
        min_length=1,
        max_length=1,
        description="what stands between columns; found in the first line else",
    )
    lists: list[str] = Field(
        default=[],
        description="columns whose values are lists, which a table holds as text: JSON, or as Python writes them",
    )
