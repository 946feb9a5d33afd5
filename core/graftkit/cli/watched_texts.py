"""Tells how much of a tokenizer command's texts has been read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

__all__ = ["watched"]


def watched(texts: Iterable[str], total: int, report: Callable[[int, int], None]) -> Iterator[str]:
    """Passes texts on, and reports how many kilobytes went by.

    Args:
        texts: The texts.
        total: Their bytes.
        report: Called with how many kilobytes were read and how many there are.
    """
    done = 0
    for text in texts:
        yield text
        done += len(text.encode())
        report(done // 1000, total // 1000)
