"""Python's source code, parsed."""

from __future__ import annotations

import ast

from graftkit.interfaces.fork_lock import ForkLock

__all__ = ["parse_python"]

_PARSING = ForkLock()


def parse_python(source: str | bytes) -> ast.Module:
    """Returns a module's syntax tree, from one thread at a time.

    Python 3.11 counts the depth of the tree that it makes in one place for all threads: where two make one at once, it
    raises "SystemError: AST constructor recursion depth mismatch".

    Raises:
        SyntaxError: It is no Python.
    """
    with _PARSING:
        return ast.parse(source)
