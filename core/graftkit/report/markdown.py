"""Markdown and YAML in which a text of somebody else's is shown and never obeyed."""

from __future__ import annotations

import json
import re

from graftkit.visible import one_line, visible

__all__ = ["code", "fenced", "plain", "yaml_text"]

_ACTIVE = re.compile(r"([\\`*_{}\[\]<>#!|~&$@]|:(?=//)|(?<=www)\.|^[-+=]|(?<=^\d)[.)])")
"""What Markdown, HTML and the links that hubs make of addresses begin with."""


def code(text: str) -> str:
    r"""Returns a text as a code span, in which nothing is markup, a link or HTML.

    Example:
        >>> code("a`b<c>")
        '``a`b<c>``'
    """
    text = one_line(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if not text.strip() or text[0] in "` " or text[-1] in "` " else ""
    return f"{fence}{space}{text}{space}{fence}"


def plain(text: str) -> str:
    r"""Returns a text on one line whose markup is escaped.

    Example:
        >>> plain("<b> [x](y)")
        '\\<b\\> \\[x\\](y)'
    """
    return _ACTIVE.sub(r"\\\1", one_line(text))


def fenced(text: str, language: str = "") -> str:
    """Returns a block of code that nothing in the text closes."""
    text = visible(text).rstrip("\n")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{re.sub('[^a-z]', '', language)}\n{text}\n{fence}"


def yaml_text(text: str) -> str:
    r"""Returns a text as a scalar of YAML: double-quoted, in ASCII, on one line, which is never anything else.

    Example:
        >>> yaml_text("no\nlicense: mit")
        '"no\\\\nlicense: mit"'
    """
    return json.dumps(one_line(text))
