"""Mappings that a program or a plugin may hand in, and that fail."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Raising"]


class Raising(Mapping[str, Any]):
    """A mapping that can't be read."""

    def __getitem__(self, key: str) -> Any:
        raise RuntimeError("its own")

    def __iter__(self) -> Any:
        raise RuntimeError("its own")

    def __len__(self) -> int:
        return 1
