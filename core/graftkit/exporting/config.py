"""Recipe fields that exporters of whole models share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from graftkit.interfaces.config import ProviderConfig

__all__ = ["FolderConfig", "StoredDtype"]

StoredDtype = Literal["float32", "bfloat16", "float16"]
"""The types that a model's tensors may be stored in."""


class FolderConfig(ProviderConfig):
    """How a whole model is stored."""

    dtype: StoredDtype = Field(
        default="float32", description="float32 keeps what was trained; the others halve the size and round"
    )
    shard_gigabytes: float = Field(default=5.0, gt=0, le=1e6, description="size of a weights file at most")
