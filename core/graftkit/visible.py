"""Shows characters that a terminal or a page would obey, or not show, as what they are."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["first_of", "further_lines_indented", "one_line", "visible"]

_OBEYED = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, escape and carriage return among them
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f"  # soft hyphen, joiner, marks, fillers, selectors
    "\u200b-\u200f\u2028-\u202e\u2060-\u206f"  # of no width, separators of lines, marks and overrides of direction
    "\u3164\ufeff\uffa0\ufff0-\ufffb"  # fillers, byte order mark, annotations
    "\ud800-\udfff"  # halves of characters
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"  # shorthand's and music's formats
    "\U000e0000-\U000e0fff"  # tags and supplementary selectors
    "]"
)
"""Unicode's categories Cc, Cf, Cs, Zl and Zp, but for the line's end, the tab, and those of Cf that are drawn: signs of
Arabic, Syriac and Kaithi, and what joins hieroglyphs. Besides, what else nothing is drawn for
(Default_Ignorable_Code_Point), but for the selectors U+FE00 to U+FE0F, which emoji need."""


def visible(text: str) -> str:
    r"""Returns a text with every control, every override of direction and every character of no width written out.

    Line ends and tabs stay. Up to U+009F they are written as Python does, above by their code points.

    Example:
        >>> visible("a\x1b]0;b\x07 \u202ec")
        'a\\x1b]0;b\\x07 U+202Ec'
    """
    return _OBEYED.sub(_written, text)


def one_line(text: str, most: int | None = None) -> str:
    r"""Returns a text as `visible` does, with line ends and tabs written out, too: a name looks like no line of ours.

    Args:
        text: The text.
        most: How many characters are shown; of a longer text the end is left out.

    Example:
        >>> one_line("a\nerror: b")
        'a\\nerror: b'
    """
    shown = visible(text).replace("\n", r"\n").replace("\t", r"\t")
    return shown if most is None or len(shown) <= most else f"{shown[: max(1, most - 3)]}..."


def first_of(names: Iterable[str], most: int = 3) -> str:
    """Returns names as a message lists them, the first ones of many.

    Args:
        names: The names.
        most: How many are shown.

    Example:
        >>> first_of(["a", "b", "c", "d"], 2)
        'a, b and 2 more'
    """
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most:,} more" if len(listed) > most else "")


def further_lines_indented(text: str) -> str:
    r"""Returns a text whose lines after the first stand further right: what is quoted begins no line of ours.

    Example:
        >>> further_lines_indented("note: a\nerror: b")
        'note: a\n  error: b'
    """
    return text.replace("\n", "\n  ")


def _written(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0xA0 else f"U+{code:04X}"
