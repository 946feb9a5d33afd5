"""Whether a regular expression of a stranger may take forever."""

from __future__ import annotations

import re

from graftkit.interfaces.pattern_cost import PatternError, steps_at_most

__all__ = ["repeats_nest", "takes_forever"]

_PATH = 64
"""Characters of a layer's path, about."""

_MOST_STEPS = 3e8
"""Of the bound on a comparison with such a path: four parts that each match anything, in a row, stay below it."""
_MOST_WAYS = 1000
"""In how many ways such a pattern may read one text wherever its parts begin: optional ones in a row double them."""
_MOST_SIGNS = 16
"""Repeats and alternatives of one that can't be judged."""

_ATOM = re.compile(r"\\[pP]\{[^}]*\}|\\x\{[^}]*\}|\\.|\[(?:\\.|\[:\^?\w+:\]|[^\]\\])+\]|\[\][^\]]*\]", re.DOTALL)
_SIGN = re.compile(r"\((?:\?(?:[imsx-]+:|[:=!>]|<[=!]|P?<\w+>|#[^)]*))?|\)|\||\*|\+|\?|\{\d*,?\d*\}")
_UNBOUNDED = re.compile(r"[*+]|\{\d*,\}")


def repeats_nest(pattern: str) -> bool:
    r"""Tells whether a part without an upper bound on its repeats holds another one, or alternatives.

    Such a pattern can match one text in exponentially many ways, all of which are tried where what follows does not
    match. Read as Python's, Oniguruma's and Perl's syntax have in common; an atomic group is tried in one way only.

    Example:
        >>> repeats_nest(r"(a+)+$"), repeats_nest(r"(a|b)*c"), repeats_nest(r"\s+(?!\S)|\s+")
        (True, True, False)
    """
    groups = [(False, False)]  # of each open group: whether it is atomic, and whether it can match in several ways
    closed = None
    for sign in _SIGN.finditer(_ATOM.sub("a", pattern)):
        mark, at = sign[0], sign.start()
        unbounded = _UNBOUNDED.fullmatch(mark) is not None
        if mark.startswith("(") and not mark.startswith("(?#"):
            groups.append((mark == "(?>", False))
        elif mark == ")" and len(groups) > 1:
            atomic, many = groups.pop()
            closed = (sign.end(), many and not atomic)
            groups[-1] = (groups[-1][0], groups[-1][1] or closed[1])
        elif unbounded and closed == (at, True):
            return True
        elif unbounded or mark == "|":
            groups[-1] = (groups[-1][0], True)
    return False


def takes_forever(pattern: str) -> bool:
    r"""Tells whether comparing a pattern with the path of a layer may take seconds.

    One whose time can't be told, such as one that refers to a group, is judged by `repeats_nest`, and by how many
    repeats and alternatives it has.

    Example:
        >>> takes_forever(r".*\.(q|k)_proj"), takes_forever(r".*.*.*.*.*.*x"), takes_forever(r"(a+)+$")
        (False, True, True)
    """
    try:
        ways = steps_at_most(f"(?:{pattern})$", 1)  # all of a path is compared, so that none of its ends is certain
        return ways > _MOST_WAYS or steps_at_most(pattern, _PATH) / _PATH > _MOST_STEPS
    except PatternError:
        signs = _SIGN.findall(_ATOM.sub("a", pattern))
        return repeats_nest(pattern) or sum(sign[0] not in "()" for sign in signs) > _MOST_SIGNS
