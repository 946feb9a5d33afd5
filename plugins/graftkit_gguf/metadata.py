"""Typed access to a GGUF file's metadata."""

from __future__ import annotations

import math
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from graftkit.errors import ModelError

from graftkit_gguf.cursor import MetadataValue

__all__ = ["NOT_SUPPORTED", "Metadata"]

NOT_SUPPORTED = "docs/gguf.md has the models that can be read; or give a Hugging Face folder of this one."

_LARGEST_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Metadata:
    """A GGUF file's metadata.

    Attributes:
        path: The file, for the errors.
        values: Key -> value, as the file's header has them.
    """

    path: Path
    values: Mapping[str, MetadataValue]

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def integer(self, key: str, default: int | None = None, *, least: int = 0) -> int:
        """Returns a whole number from `least` to 2^31 - 1.

        Raises:
            ModelError: The key is missing and there is no default, or its value is something else.
        """
        value = self._get(key, default)
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= _LARGEST_INTEGER:
            raise self.error(key, f"not a whole number of at least {least}")
        return value

    def positive(self, key: str, default: float | None = None) -> float:
        """Returns a finite number above zero.

        Raises:
            ModelError: As for `integer`.
        """
        value = self._get(key, default)
        if not isinstance(value, (int, float)) or not 0 < value < math.inf:
            raise self.error(key, "not a positive number")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """Returns a boolean.

        Raises:
            ModelError: The key's value is something else.
        """
        value = self._get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "not a boolean")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """Returns a string that is valid UTF-8.

        Raises:
            ModelError: As for `integer`.
        """
        value = self._get(key, default)
        if not isinstance(value, str) or not _is_unicode(value):
            raise self.error(key, "not a string in UTF-8")
        return value

    def texts(self, key: str) -> list[str]:
        """Returns an array of strings, all of them valid UTF-8.

        Raises:
            ModelError: As for `integer`.
        """
        value = self._get(key, None)
        if not isinstance(value, list):
            raise self.error(key, "not an array of strings")
        if not _is_unicode("".join(value)):
            broken = next(index for index, text in enumerate(value) if not _is_unicode(text))
            raise self._problem(f"element {broken} of {key} is not UTF-8: {value[broken][:80]!r}")
        return value

    def integers(self, key: str) -> list[int]:
        """Returns an array of whole numbers.

        Raises:
            ModelError: As for `integer`.
        """
        value = self._get(key, None)
        if not isinstance(value, array) or value.typecode in "fd":
            raise self.error(key, "not an array of whole numbers")
        return [int(number) for number in value]

    def numbers(self, key: str) -> list[float]:
        """Returns an array of finite numbers.

        Raises:
            ModelError: As for `integer`.
        """
        value = self._get(key, None)
        if not isinstance(value, array) or not all(map(math.isfinite, value)):
            raise self.error(key, "not an array of numbers")
        return [float(number) for number in value]

    def refused(self, message: str) -> ModelError:
        """Returns the error for a model that is not supported."""
        return ModelError(message, where=str(self.path), hint=NOT_SUPPORTED)

    def error(self, key: str, problem: str) -> ModelError:
        """Returns the error for a key whose value can't be used."""
        return self._problem(f"{key} is {self.shown(key)}, {problem}")

    def shown(self, key: str) -> str:
        """Returns a key's value as an error may show it."""
        value = self.values.get(key)
        return f"an array of {len(value)}" if isinstance(value, (list, array)) else repr(value)[:80]

    def _get(self, key: str, default: MetadataValue | None) -> MetadataValue:
        value = self.values.get(key, default)
        if value is None:
            raise self._problem(f"its metadata has no {key}")
        return value

    def _problem(self, message: str) -> ModelError:
        return ModelError(message, where=str(self.path), hint="Convert the model again, or download another file.")


def _is_unicode(text: str) -> bool:
    """Tells whether a text was valid UTF-8: other bytes are decoded to lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
