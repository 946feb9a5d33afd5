"""What the parts of a run's manifest have in common, and what is said of a file."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict

__all__ = [
    "Facts",
    "FileFacts",
]


class Facts(BaseModel):
    """A part of a manifest: frozen, no type converted, and keys that are not declared are kept as they are."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", protected_namespaces=())


class FileFacts(Facts):
    """A file's size in bytes, and its sha256 in hex."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, text: str) -> FileFacts:
        """Returns those of a file that holds a text, UTF-8."""
        data = text.encode()
        return cls(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
