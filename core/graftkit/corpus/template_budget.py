"""Counts what rendering a chat template costs, so that a template of a stranger ends soon and stays small."""

from __future__ import annotations

from collections.abc import ItemsView as Items
from collections.abc import Iterable, Iterator, KeysView, Mapping, Sequence, ValuesView
from typing import Any

from jinja2.runtime import LoopContext
from jinja2.utils import Cycler, Joiner, Namespace

__all__ = ["CHARACTERS_A_STEP", "Budget", "Counted", "LimitError"]

CHARACTERS_A_STEP = 16
MAX_DEPTH = 100
MAX_BITS = 4096
"""The most bits of a whole number."""

_STEPS = 4_000_000
_STEPS_A_MESSAGE = 5_000
_STEPS_A_CHARACTER = 4


class LimitError(Exception):
    """A template does more than it is allowed to; the message completes "the chat template ..."."""


class Budget:
    """The steps that are left of a rendering.

    A step is the evaluation of a small expression, or the reading or writing of 16 characters. A rendering may take a
    constant number of them plus a number in proportion to the conversation, so that long conversations pass.
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0

    def begin(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Any] = ()) -> None:
        """Starts counting the rendering of a conversation."""
        values, characters = _size([messages, tools])
        self.left = _STEPS + _STEPS_A_MESSAGE * max(len(messages), values // 4) + _STEPS_A_CHARACTER * characters

    def spend(self, steps: int) -> None:
        """Takes steps away.

        Raises:
            LimitError: None is left.
        """
        self.left -= steps
        if self.left < 0:
            raise LimitError("does far more work than laying out a conversation takes")

    def spend_on(self, *values: Any, times: int = 1) -> None:
        """Takes away what reading each of these values so many times costs."""
        for value in values:
            self.spend(times * self.weigh(value))

    def weigh(self, value: Any) -> int:
        """Returns the steps that reading a value takes, with everything in it; what stands in it twice counts twice.

        Raises:
            LimitError: It is nested too deeply, or larger than what is left.
        """
        if type(value) is str:
            return len(value) // CHARACTERS_A_STEP + 1
        if value is None or type(value) in (bool, float):
            return 1
        total = 0
        stack: list[Iterator[Any]] = [iter((value,))]
        while stack:
            for item in stack[-1]:
                weight, inner = _look(item)
                total += weight
                if inner is not None:
                    stack.append(iter(inner))
                    break
            else:
                stack.pop()
            if total > self.left:
                raise LimitError("makes a value that is far larger than the conversation")
            if len(stack) > MAX_DEPTH:
                raise LimitError(f"makes a value that is nested over {MAX_DEPTH} levels deep")
        return total


def _size(value: Any) -> tuple[int, int]:
    """Returns how many values JSON holds but for texts, and how many characters its texts have."""
    values = characters = 0
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str):
            characters += len(item)
            continue
        values += 1
        stack += item.values() if isinstance(item, Mapping) else item if isinstance(item, list | tuple) else ()
    return values, characters


def _look(item: Any) -> tuple[int, Iterable[Any] | None]:
    """Returns a value's own weight and the values in it."""
    if isinstance(item, str):
        expansion = 1 if type(item) is str else 6  # jinja2's Markup escapes what is put to it
        return expansion * len(item) // CHARACTERS_A_STEP + 1, None
    if isinstance(item, int):
        return item.bit_length() // 128 + 1, None
    if isinstance(item, dict):
        return 8, (part for pair in item.items() for part in pair)
    if isinstance(item, list | tuple):
        return 4, item
    if isinstance(item, range):
        return len(item) + 1, None
    if isinstance(item, Namespace):
        return 8, (object.__getattribute__(item, "_Namespace__attrs"),)
    if isinstance(item, Cycler):
        return 4, item.items
    if isinstance(item, Joiner):
        return 4, (item.sep,)
    if isinstance(item, KeysView | ValuesView | Items):
        return 4, item
    if isinstance(item, LoopContext):
        raise LimitError("uses the variable 'loop' as a value")
    return 1, None


class Counted:
    """An iterator each of whose items costs what reading it costs.

    Args:
        items: What it yields.
        budget: What it takes the steps from.
    """

    __slots__ = ("_budget", "_items")

    def __init__(self, items: Iterator[Any], budget: Budget) -> None:
        self._items = items
        self._budget = budget

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Any:
        item = next(self._items)
        self._budget.spend(8)
        self._budget.spend_on(item)
        return item
