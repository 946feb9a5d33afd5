"""Reads the JSON object of a request key by key: what nobody reads is refused by name."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from graftkit.interfaces.record_format import kind_of
from graftkit.serve.api_error import invalid
from graftkit.suggest import nearest

__all__ = ["Fields", "items_of"]

_SHOWN = 100
"""Characters of a value that an error shows."""


class Fields:
    """A JSON object whose keys are taken one by one; a key with the value null counts as left out.

    Args:
        value: The JSON.
        path: Where it stands in the request, such as "messages[0]"; "" for the request itself.

    Raises:
        ApiError: It is no object. Likewise from every method where a value is wrong, or missing without a default.
    """

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise invalid(path, f"{path or 'the body'} is {kind_of(value)}, no object", "invalid_type")
        self._left = {key: item for key, item in value.items() if item is not None}
        self._path = path
        self._asked: list[str] = []

    def path(self, key: str) -> str:
        """Returns where a key stands in the request."""
        return f"{self._path}.{key}" if self._path else key

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def peek(self, key: str) -> Any:
        """Returns any value without taking it; None where it was left out."""
        return self._left.get(key)

    def take(self, key: str) -> Any:
        """Returns any value; None where it was left out."""
        self._asked.append(key)
        return self._left.pop(key, None)

    def required(self, key: str) -> Any:
        """Returns a value that has to be there."""
        if key not in self._left:
            raise invalid(self.path(key), f"{self.path(key)} is missing", "missing_required_parameter")
        return self.take(key)

    def required_text(self, key: str) -> str:
        """Returns a text that has to be there."""
        if key not in self._left:
            self.required(key)
        return self.text(key) or ""

    def text(self, key: str) -> str | None:
        """Returns a text."""
        found = self.take(key)
        if found is not None and not isinstance(found, str):
            raise self._type_error(key, found, "a string")
        return found

    def flag(self, key: str) -> bool:
        """Returns true or false; false where it was left out."""
        found = self.take(key)
        if found is not None and not isinstance(found, bool):
            raise self._type_error(key, found, "true or false")
        return bool(found)

    def whole(self, key: str, least: int, most: int) -> int | None:
        """Returns a whole number.

        Args:
            key: Its key; None is returned where it was left out, or is null.
            least: The least that is allowed.
            most: The most.
        """
        found = self.take(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int):
            raise self._type_error(key, found, "a whole number")
        self._check_range(key, found, least, most)
        return found

    def number(self, key: str, least: float, most: float) -> float | None:
        """Returns a number.

        Args:
            key: Its key; None is returned where it was left out, or is null.
            least: The least that is allowed.
            most: The most.
        """
        found = self.take(key)
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self._type_error(key, found, "a number")
        self._check_range(key, found, least, most)
        return float(found)

    def items(self, key: str, most: int) -> Iterator[tuple[Any, str]] | None:
        """Returns a list's values, each with where it stands; None where the list was left out."""
        found = self.take(key)
        return None if found is None else items_of(found, self.path(key), most)

    def only(self, key: str, *values: Any, why: str) -> None:
        """Refuses a value that would change the answer, and is not implemented.

        Args:
            key: The key.
            values: The JSON values that change nothing.
            why: What is so instead.
        """
        found = self.take(key)
        if found is not None and not any(_same(found, value) for value in values):
            raise invalid(
                self.path(key), f"{self.path(key)}: {_shown(found)} is not supported: {why}", "unsupported_value"
            )

    def skip(self, *keys: str) -> None:
        """Takes keys that have no influence on the answer."""
        for key in keys:
            self.take(key)

    def done(self) -> None:
        """Refuses what was not taken."""
        for key in self._left:
            path = self.path(key[:_SHOWN])
            hint = nearest(key[:_SHOWN], self._asked)
            raise invalid(path, f"unknown parameter: {path}. {hint}".rstrip(), "unknown_parameter")

    def _type_error(self, key: str, found: Any, wanted: str) -> Exception:
        return invalid(self.path(key), f"{self.path(key)} is {kind_of(found)}, not {wanted}", "invalid_type")

    def _check_range(self, key: str, found: float, least: float, most: float) -> None:
        if not least <= found <= most or math.isnan(found):
            message = f"{self.path(key)} is {_shown(found)}; it goes from {least:,} to {most:,}"
            raise invalid(self.path(key), message)


def items_of(value: Any, path: str, most: int, wanted: str = "a list") -> Iterator[tuple[Any, str]]:
    """Returns a list's values, each with where it stands in the request.

    Args:
        value: The JSON.
        path: Where it stands itself.
        most: How many values there may be.
        wanted: What it should be, for errors.

    Raises:
        ApiError: It is no list, or a longer one.
    """
    if not isinstance(value, list):
        raise invalid(path, f"{path} is {kind_of(value)}, not {wanted}", "invalid_type")
    if len(value) > most:
        raise invalid(path, f"{path} has {len(value):,} items; at most {most:,} are taken")
    return ((item, f"{path}[{number}]") for number, item in enumerate(value))


def _same(found: Any, value: Any) -> bool:
    """Whether two JSON values are the same; 1 and true are not."""
    return type(found) is type(value) and bool(found == value)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
