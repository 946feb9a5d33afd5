"""The source code of transformers' architectures, parsed."""

from __future__ import annotations

import ast
import inspect
import sys
from functools import cache

from graftkit.interfaces.python_source import parse_python

__all__ = ["class_definition"]


def class_definition(module: str, name: str) -> ast.ClassDef | None:
    """Returns the definition of a class of one of transformers' architectures; None for every other class.

    Args:
        module: The class's `__module__`.
        name: Its `__name__`.
    """
    return _definitions_in(module).get(name)


@cache
def _definitions_in(module: str) -> dict[str, ast.ClassDef]:
    if not module.startswith("transformers.models."):
        return {}
    tree = parse_python(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
