"""Whole numbers of more digits than Python reads, whose own error is of no use to whoever wrote the file."""

from __future__ import annotations

__all__ = ["LONG_NUMBER", "is_long_number"]

LONG_NUMBER = "a number too long to read"


def is_long_number(error: ValueError) -> bool:
    """Tells whether that is why Python has refused to read a text; its message names the function for more of them."""
    return "set_int_max_str_digits" in str(error)
