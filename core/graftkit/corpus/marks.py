"""Marks that a chat template carries through, by which the author of every character of its text is known."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Marks", "Stretch", "parts_of"]

_BLOCKS = range(0xE000, 0xF8E0, 0x20)
"""Where in the private use area the marks' characters may lie."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a rendered text.

    Attributes:
        text: The part.
        leaf: The number of the text of the conversation that it is of; None where the template wrote it.
        block: The number of the `{% generation %}` block that it stands in; None outside of them.
    """

    text: str
    leaf: int | None
    block: int | None = None


class Marks:
    """Private-use characters that stand in none of some texts.

    Args:
        texts: The conversation's texts, and the template.

    Raises:
        ValueError: Every block of private-use characters stands in them.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        joined = "\n".join(texts)
        used = {ord(found) & ~0x1F for found in re.findall("[\ue000-\uf8ff]", joined)}
        used |= {int(found, 16) & ~0x1F for found in re.findall(r"\\u([ef][0-9a-f]{3})", joined, re.IGNORECASE)}
        start = next((block for block in _BLOCKS if block not in used), None)
        if start is None:
            raise ValueError("it holds private-use characters of every block")
        self._zero = start + 0x10
        self._open, self._close = chr(start), chr(start + 1)
        self.block_open, self.block_close = chr(start + 2), chr(start + 3)
        prefix = f"{start + 0x10:04x}"[:3]
        self._escaped = re.compile(rf"\\u({f'{start:04x}'[:3]}[0-3]|{prefix}[0-9])", re.IGNORECASE)
        digits = f"[{chr(self._zero)}-{chr(self._zero + 9)}]"
        self._any = re.compile(f"{self._open}{digits}+|[{self._close}{self.block_open}{self.block_close}]")

    def around(self, text: str, leaf: int) -> str:
        """Returns a text between marks."""
        number = "".join(chr(self._zero + int(digit)) for digit in str(leaf))
        return f"{self._open}{number}{text}{self._close}"

    def around_core(self, text: str, leaf: int, words: Sequence[str]) -> str:
        """Returns a text whose white space at either end, and some words in it, stand outside the marks."""
        return "".join(self.around(part, leaf) if own else part for part, own in parts_of(text, words))

    def stretches(self, rendered: str) -> list[Stretch] | None:
        """Returns the parts of a rendered text; None where the marks in it do not stand in pairs."""
        text = self._escaped.sub(lambda found: chr(int(found[1], 16)), rendered)
        found: list[Stretch] = []
        leaf: int | None = None
        blocks, block = 0, None
        place = opened = 0
        for mark in self._any.finditer(text):
            if mark.start() > place:
                found.append(Stretch(text[place : mark.start()], leaf, block))
            place = mark.end()
            sign = mark[0][0]
            if sign == self._open and leaf is None:
                leaf, opened = int("".join(str(ord(digit) - self._zero) for digit in mark[0][1:])), place
            elif sign == self._close and leaf is not None:
                if opened == mark.start():
                    found.append(Stretch("", leaf, block))
                leaf = None
            elif sign == self.block_open and leaf is None and block is None:
                block, blocks = blocks, blocks + 1
            elif sign == self.block_close and leaf is None and block is not None:
                block = None
            else:
                return None
        if leaf is not None or block is not None:
            return None
        return [*found, *([Stretch(text[place:], None)] if place < len(text) else [])]


def parts_of(text: str, words: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Cuts a text at some words, and where white space begins or ends a part.

    Yields:
        Its parts in their order, and whether each is to stand between marks: words and white space are not. Of white
        space alone there is an empty part at its end.
    """
    if text.isspace():
        yield from ((text, False), ("", True))
        return
    present = [word for word in words if word in text]
    parts = re.split(f"({'|'.join(map(re.escape, present))})", text.strip()) if present else [text.strip()]
    start = text.index(text.strip())
    yield text[:start], False
    for number, part in enumerate(parts):
        core = part.strip()
        if number % 2 or not core:
            yield part, False
            continue
        begin = part.index(core)
        yield from ((part[:begin], False), (core, True), (part[begin + len(core) :], False))
    yield text[start + len(text.strip()) :], False
