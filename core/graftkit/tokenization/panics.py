"""Turns panics of the `tokenizers` library into errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graftkit.errors import ModelError

__all__ = ["no_panic"]


@contextmanager
def no_panic(where: str, what: str = "tokenizer.json can't be used") -> Iterator[None]:
    """Turns the library's failures into a `ModelError`; a Rust panic is no `Exception`.

    Other exceptions that are raised in the block, such as by an iterator of texts, are left alone.

    Args:
        where: The tokenizer's folder, for the error.
        what: The beginning of the error's message, before the library's own.

    Raises:
        ModelError: The library failed.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise ModelError(f"{what}: {error}", where=where) from None
        raise
