"""What the `tokenizers` library does with files that it can't use becomes an error with a name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from graftkit.errors import ModelError

__all__ = ["no_panic"]


@contextmanager
def no_panic(where: str, what: str = "tokenizer.json can't be used") -> Iterator[None]:
    """Turns what a bad tokenizer.json does into an error: a Rust panic arrives as no `Exception`.

    Whatever else is raised inside, such as by texts that can't be read, goes through.

    Args:
        where: The tokenizer's folder.
        what: What the error says before the library's own words.

    Raises:
        ModelError: The library gave up.
    """
    try:
        yield
    except BaseException as error:
        if type(error) is Exception or type(error).__name__ == "PanicException":
            raise ModelError(f"{what}: {error}", where=where) from None
        raise
