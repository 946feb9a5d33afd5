"""The project's documents as their tests read them: pages, blocks of code, headings, links."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import click
from graftkit.cli.main import cli
from graftkit.recipe.document import parse_value

__all__ = ["PAGES", "ROOT", "Block", "anchors", "blocks", "leaf_command", "links", "text_of"]

ROOT = Path(__file__).parents[1]
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "fixtures/plugins/*/README.md")
    for path in sorted(ROOT.glob(pattern))
]
_FENCED = re.compile(r"(?:^`([^`\n]+)`\n\n)?^```([^\n`]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Attributes:
        page: The page's path in the repository.
        line: Where it begins.
        language: The first word behind the fence.
        text: What it holds.
        file: The file that it shows: a name that stands alone in the line above, or ends it before a colon.
    """

    page: str
    line: int
    language: str
    text: str
    file: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    def value(self) -> Any:
        """Returns what its YAML says."""
        return parse_value(self.text, str(self))

    def commands(self) -> list[list[str]]:
        """Returns the words of each command that it shows, without comments."""
        whole = self.text.replace("\\\n", " ").splitlines()
        lines = [line.removeprefix("$ ") for line in whole if line.startswith("$ ")]
        return [shlex.split(line, comments=True) for line in lines]


@cache
def text_of(page: str) -> str:
    """Returns a page's text."""
    return (ROOT / page).read_text(encoding="utf-8")


@cache
def blocks(page: str) -> tuple[Block, ...]:
    """Returns the blocks of a page."""
    text = text_of(page)
    found = []
    for match in _FENCED.finditer(text):
        before = text[: match.start()].rstrip().rpartition("\n")[2]
        named = re.search(r"`([\w./-]+\.\w+)`[^`]*:$", before)
        file = match[1] or (named[1] if named else "")
        found.append(Block(page, text.count("\n", 0, match.start(2)) + 1, match[2].partition(" ")[0], match[3], file))
    return tuple(found)


def _prose(page: str) -> str:
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors(page: str) -> frozenset[str]:
    """Returns the anchors of a page's headings, as forges and the site make them."""
    found: dict[str, int] = {}
    for heading in re.findall(r"^#{1,6} (.+)$", _prose(page), flags=re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = found.setdefault(anchor, 0)
        found[anchor] += 1
        found[f"{anchor}-{number}" if number else anchor] = 1
    return frozenset(found)


def links(page: str) -> list[tuple[str, str]]:
    """Returns the file and the anchor that each link of a page names, without those to elsewhere."""
    prose = re.sub(r"`[^`\n]*`", "", _prose(page))
    return [
        (path, anchor)
        for path, _, anchor in (target.partition("#") for target in re.findall(r"\]\(([^)\s]+)\)", prose))
        if "://" not in path
    ]


def leaf_command(words: Sequence[str]) -> tuple[click.Command, list[str]]:
    """Returns the command of `toolkit` that words name, and the words after it.

    Raises:
        LookupError: There is none of that name.
    """
    command: click.Command = cli
    rest = list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        found = command.get_command(click.Context(command, resilient_parsing=True), rest[0])
        if found is None:
            raise LookupError(f"toolkit has no command {rest[0]!r}")
        command, rest = found, rest[1:]
    return command, rest
