"""What is said of a whole number of more digits than Python reads, whose own words are about Python."""

from __future__ import annotations

__all__ = ["LONG_NUMBER", "is_long_number"]

LONG_NUMBER = "a number too long to read"


def is_long_number(error: ValueError) -> bool:
    """Tells whether that is why Python has refused to read a text; its message names the function for more of them."""
    return "set_int_max_str_digits" in str(error)
