"""JSON that can be read and passed on, and not changed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NoReturn

__all__ = ["frozen"]


def _refuse(self: object, *arguments: object, **named: object) -> NoReturn:
    raise TypeError("a plugin can't change what a run is: take copy.deepcopy() of it, which can be changed")


class _FrozenDict(dict[str, Any]):
    """A dict of a run's; its copies are plain dicts."""

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def copy(self) -> dict[str, Any]:
        """Returns a plain dict with the same values."""
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: object) -> dict[str, Any]:
        return {key: _thawed(value) for key, value in self.items()}

    def __reduce__(self) -> tuple[Any, ...]:
        return _thawed, (self.__deepcopy__(None),)


class _FrozenList(list[Any]):
    """A list of a run's; its copies are plain lists."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def copy(self) -> list[Any]:
        """Returns a plain list of the same values."""
        return list(self)

    __copy__ = copy

    def __deepcopy__(self, memo: object) -> list[Any]:
        return [_thawed(value) for value in self]

    def __reduce__(self) -> tuple[Any, ...]:
        return _thawed, (self.__deepcopy__(None),)


def frozen(value: Any) -> Any:
    """Returns a copy of JSON whose dicts and lists, however deep, refuse to be changed.

    They are dicts and lists for whoever reads them: `json.dumps` writes them, and `==` compares them. Copies of them,
    `copy.deepcopy` and pickle's too, are plain ones.

    Example:
        >>> frozen({"a": [1]}) == {"a": [1]}
        True
    """
    if isinstance(value, Mapping):
        return _FrozenDict({key: frozen(inner) for key, inner in value.items()})
    if isinstance(value, list | tuple):
        return _FrozenList(frozen(inner) for inner in value)
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, _FrozenDict | _FrozenList):
        return value.__deepcopy__(None)
    return value
