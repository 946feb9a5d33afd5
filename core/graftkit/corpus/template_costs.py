"""What the filters, methods and operators cost that a chat template may use; what stands in no table here is refused.

A cost is a number of steps (`Budget`), an upper bound that is known before the work is done. A function here takes the
budget, then what the filter or the method takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, KeysView, Mapping
from typing import Any

from graftkit.corpus.template_budget import CHARACTERS_A_STEP, MAX_BITS, Budget, LimitError

__all__ = [
    "ATTRIBUTES",
    "FILTERS",
    "LAZY",
    "METHODS",
    "TESTS",
    "Cost",
    "check_key",
    "check_number",
    "check_width",
    "cost_of_containing",
    "cost_of_percent",
]

Cost = Callable[..., int]

_MAX_WIDTH = 10_000
_STEPS_AN_ITEM = 5
"""What one more item of a list costs, in time and in memory, beside its contents."""


def check_key(key: Any) -> Any:
    """Returns a key of a mapping.

    Raises:
        LimitError: Keys of its kind can be chosen so that they all collide.
    """
    if isinstance(key, tuple) or (isinstance(key, int) and key.bit_length() > 60):
        raise LimitError("uses a tuple or a very large number as a key")
    return key


def check_number(value: Any) -> Any:
    """Returns the result of a calculation.

    Raises:
        LimitError: It is a whole number of over 4,096 bits.
    """
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise LimitError("calculates a number that is far too large")
    return value


def cost_of_percent(budget: Budget, pattern: str, values: Any) -> int:
    """Returns what `pattern % values` costs.

    Raises:
        LimitError: A field is wider than 10,000 characters, or what it is can't be told.
    """
    fields = [field for field in _FIELD.finditer(pattern) if field[0] != "%%"]
    named = any(field["key"] for field in fields)
    if any(field["key"] and not field["name"] for field in fields):
        raise LimitError("writes a field whose width can't be told")
    wide = sum(_width(field[part], values) for field in fields for part in ("width", "precision"))
    cost = budget.weigh(pattern) + 4 * budget.weigh(values) * (len(fields) if named else 1)
    return cost + len(fields) + wide // CHARACTERS_A_STEP


_FIELD = re.compile(
    r"%%|%(?P<key>\((?P<name>[^()]*\))?)?[-#0 +]*(?P<width>\*|[0-9]*)(?:\.(?P<precision>\*|[0-9]*))?", re.DOTALL
)


def _width(written: str | None, values: Any) -> int:
    if written == "*":
        numbers = [value for value in (values if isinstance(values, tuple) else (values,)) if isinstance(value, int)]
        return check_width(max(map(abs, numbers), default=0))
    return check_width(int(written[:10])) if written else 0


def check_width(width: Any) -> int:
    """Returns a width, in characters.

    Raises:
        LimitError: It is over 10,000, or no number.
    """
    if not isinstance(width, int) or abs(width) > _MAX_WIDTH:
        raise LimitError(f"pads to more than {_MAX_WIDTH:,} characters")
    return abs(width)


# --- shapes of costs ------------------------------------------------------------------------------------------------


def _free(budget: Budget, *given: Any, **named: Any) -> int:
    return 1


def _read(times: int) -> Cost:
    """What reading all of it so many times costs."""

    def cost(budget: Budget, *given: Any, **named: Any) -> int:
        total = 0
        for value in (*given, *named.values()) if named else given:
            total += len(value) // CHARACTERS_A_STEP + 1 if type(value) is str else budget.weigh(value)
        return times * total

    return cost


def _each(times: int) -> Cost:
    """What going over the items of the first value costs; the items of a text are its characters."""

    def cost(budget: Budget, items: Any, *given: Any, **named: Any) -> int:
        characters = _STEPS_AN_ITEM * len(items) if isinstance(items, str) else 0
        weights: list[int] = [budget.weigh(value) for value in (items, *given, *named.values())]
        return times * (characters + sum(weights))

    return cost


def _search(budget: Budget, text: str, wanted: Any = "", *given: Any, **named: Any) -> int:
    """What finding texts of up to hundreds of characters costs."""
    near = min(len(wanted), 128) if isinstance(wanted, str) else 128
    return budget.weigh(text) + budget.weigh(wanted) + len(text) * near // 1024


def _search_backwards(budget: Budget, text: str, wanted: Any = "", *given: Any, **named: Any) -> int:
    """What finding the last one costs: Python compares the whole of it at each place."""
    return budget.weigh(text) + len(text) * (len(wanted) if isinstance(wanted, str) else 1) // 64


def _pad(budget: Budget, text: Any, width: int = 80, *given: Any) -> int:
    return budget.weigh(text) + check_width(width) // CHARACTERS_A_STEP


def _expand_tabs(budget: Budget, text: str, tabsize: int = 8) -> int:
    return budget.weigh(text) + text.count("\t") * check_width(tabsize) // CHARACTERS_A_STEP


def _replace(budget: Budget, text: Any, old: Any, new: Any, count: int | None = -1) -> int:
    budget.spend_on(text, old, new)
    text, old, new = str(text), str(old), str(new)
    found: int = text.count(old)
    if count is not None and count >= 0:
        found = min(found, count)
    return _search(budget, text, old) + found * (len(new) + 1) // CHARACTERS_A_STEP


def _split(budget: Budget, text: str, sep: str | None = None, maxsplit: int = -1) -> int:
    parts = text.count(sep) if sep else sum(1 for _ in re.finditer(r"\S+", text))
    if maxsplit >= 0:
        parts = min(parts, maxsplit)
    return _search(budget, text, sep or "") + _STEPS_AN_ITEM * (parts + 1)


def _split_backwards(budget: Budget, text: str, sep: str | None = None, maxsplit: int = -1) -> int:
    return _split(budget, text, sep, maxsplit) + _search_backwards(budget, text, sep or "")


_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"


def _lines(budget: Budget, text: str, *given: Any, **named: Any) -> int:
    return budget.weigh(text) + _STEPS_AN_ITEM * (1 + sum(map(text.count, _LINE_ENDS)))


def _indent(budget: Budget, text: str, width: Any = 4, *given: Any, **named: Any) -> int:
    indentation = len(width) if isinstance(width, str) else check_width(width)
    lines = _lines(budget, text)
    return 2 * lines + lines * indentation // (_STEPS_AN_ITEM * CHARACTERS_A_STEP)


def _join(budget: Budget, items: Any, separator: Any = "", *given: Any, **named: Any) -> int:
    """What joining costs; a part that is no text is written as one."""
    count = len(items) if hasattr(items, "__len__") else 0
    characters = _STEPS_AN_ITEM * len(items) if isinstance(items, str) else 0
    return characters + 4 * budget.weigh(items) + count * budget.weigh(separator)


def _join_method(budget: Budget, separator: str, items: Any) -> int:
    return _join(budget, items, separator)


def _sort(budget: Budget, items: Any, *given: Any, **named: Any) -> int:
    count = len(items) if hasattr(items, "__len__") else 0
    return _each(3)(budget, items, *given, **named) * (1 + count.bit_length())


def _to_json(
    budget: Budget,
    value: Any,
    ensure_ascii: bool = False,
    indent: Any = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> int:
    indentation = len(indent) if isinstance(indent, str) else check_width(indent or 0)
    between = sum(map(len, separators)) if separators else 0
    return budget.weigh(value) * (12 if ensure_ascii else 6) * (1 + (indentation + between) // 2)


def _batch(budget: Budget, items: Any, size: int, fill: Any = None) -> int:
    return _each(2)(budget, items) + (check_width(size) if fill is not None else 0)


def _slice(budget: Budget, items: Any, slices: int, fill: Any = None) -> int:
    """What cutting into so many lists costs: each is made, whether or not items are left for it."""
    return _each(2)(budget, items) + _STEPS_AN_ITEM * abs(int(slices))


def _round(budget: Budget, value: Any, precision: int = 0, *given: Any, **named: Any) -> int:
    if abs(precision) > 300:
        raise LimitError("rounds to more than 300 digits")
    return 1


def _total(budget: Budget, items: Any, attribute: Any = None, start: Any = 0) -> int:
    if not isinstance(start, int | float):
        raise LimitError("sums up what is no number")
    return _each(1)(budget, items)


def _format(budget: Budget, pattern: Any, *given: Any, **named: Any) -> int:
    return cost_of_percent(budget, str(pattern), named or given)


def _digits(budget: Budget, text: Any, *given: Any, **named: Any) -> int:
    if isinstance(text, str) and len(text) > MAX_BITS:
        raise LimitError("reads a number that is far too long")
    return 1


def _key(budget: Budget, mapping: Any, key: Any, *given: Any) -> int:
    check_key(key)
    return budget.weigh(key)


# --- the tables -----------------------------------------------------------------------------------------------------

FILTERS: dict[str, Cost] = {
    "abs": _free,
    "attr": _free,
    "batch": _batch,
    "capitalize": _read(3),
    "center": _pad,
    "count": _free,
    "d": _free,
    "default": _free,
    "dictsort": _sort,
    "e": _read(6),
    "escape": _read(6),
    "filesizeformat": _read(1),
    "first": _free,
    "float": _read(1),
    "forceescape": _read(6),
    "format": _format,
    "groupby": _sort,
    "indent": _indent,
    "int": _digits,
    "items": _free,
    "join": _join,
    "last": _free,
    "length": _free,
    "list": _each(1),
    "lower": _read(3),
    "map": _each(8),
    "max": _each(3),
    "min": _each(3),
    "reject": _each(8),
    "rejectattr": _each(8),
    "replace": _replace,
    "reverse": _read(1),
    "round": _round,
    "safe": _read(1),
    "select": _each(8),
    "selectattr": _each(8),
    "slice": _slice,
    "sort": _sort,
    "string": _read(4),
    "sum": _total,
    "title": _each(4),
    "tojson": _to_json,
    "trim": _read(1),
    "truncate": _read(2),
    "unique": _each(3),
    "upper": _read(3),
    "urlencode": _read(12),
    "wordcount": _each(1),
}
"""Filter -> what it costs. Left out: those that draw at random, and `pprint`, `striptags`, `urlize`, `wordwrap` and
`xmlattr`, whose time grows faster than their text."""

LAZY = frozenset(
    [
        "batch",
        "first",
        "items",
        "last",
        "length",
        "count",
        "default",
        "d",
        "map",
        "reject",
        "rejectattr",
        "select",
        "selectattr",
        "slice",
        "unique",
    ]
)
"""Filters that are given an iterator as it is; for others it becomes a list, whose cost can be told."""

ATTRIBUTES: dict[str, int] = {
    "groupby": 0,
    "join": 1,
    "max": 1,
    "min": 1,
    "rejectattr": 0,
    "selectattr": 0,
    "sort": 2,
    "sum": 0,
    "unique": 1,
}
"""Filter -> which of its arguments, after the value, is the path of an attribute; by name it is `attribute`."""

TESTS: dict[str, Cost | None] = {
    **dict.fromkeys(
        [
            "boolean",
            "callable",
            "defined",
            "escaped",
            "false",
            "float",
            "integer",
            "iterable",
            "mapping",
            "none",
            "number",
            "sameas",
            "sequence",
            "string",
            "true",
            "undefined",
        ]
    ),
    **dict.fromkeys(
        [
            "eq",
            "equalto",
            "==",
            "ne",
            "!=",
            "gt",
            "greaterthan",
            ">",
            "ge",
            ">=",
            "lt",
            "lessthan",
            "<",
            "le",
            "<=",
            "lower",
            "upper",
        ],
        _read(1),
    ),
    **dict.fromkeys(["filter", "test"], _read(1)),
}
"""Test -> what it costs; None for one that looks at a type alone. `in`, `odd`, `even` and `divisibleby` have their own
functions."""

_TEXT_METHODS: dict[str, Cost] = {
    **dict.fromkeys(
        [
            "isalnum",
            "isalpha",
            "isascii",
            "isdecimal",
            "isdigit",
            "isidentifier",
            "islower",
            "isnumeric",
            "isprintable",
            "isspace",
            "istitle",
            "isupper",
            "lstrip",
            "rstrip",
            "strip",
            "removeprefix",
            "removesuffix",
            "startswith",
            "endswith",
        ],
        _read(1),
    ),
    **dict.fromkeys(["capitalize", "casefold", "lower", "swapcase", "title", "upper"], _read(3)),
    **dict.fromkeys(["count", "find", "index", "partition"], _search),
    **dict.fromkeys(["rfind", "rindex", "rpartition"], _search_backwards),
    **dict.fromkeys(["center", "ljust", "rjust", "zfill"], _pad),
    "expandtabs": _expand_tabs,
    "join": _join_method,
    "replace": _replace,
    "rsplit": _split_backwards,
    "split": _split,
    "splitlines": _lines,
}

METHODS: dict[tuple[type, str], Cost] = {
    **{(str, name): cost for name, cost in _TEXT_METHODS.items()},
    **{(dict, name): _free for name in ("items", "keys", "values")},
    **{(kind, name): _read(1) for kind in (list, tuple, range) for name in ("count", "index")},
    (dict, "copy"): _read(1),
    (dict, "get"): _key,
    (list, "copy"): _read(1),
    (int, "bit_length"): _free,
    (float, "is_integer"): _free,
}
"""Type and method -> what it costs, the object itself being the first argument."""


def cost_of_containing(budget: Budget, item: Any, container: Any) -> int:
    """Returns what `item in container` costs."""
    if isinstance(container, Mapping | KeysView):
        return _key(budget, container, item)
    if isinstance(container, str):
        return _search(budget, container, item)
    return budget.weigh(item) + budget.weigh(container)
