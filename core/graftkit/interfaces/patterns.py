"""Whether a regular expression of a stranger may take exponential time."""

from __future__ import annotations

import re

__all__ = ["repeats_nest"]

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
