"""Links between documents lead somewhere, and every page is reached from the index."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from documents import PAGES, ROOT, anchors, links, text_of


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_lead_somewhere(page: str) -> None:
    for path, anchor in links(page):
        target = os.path.normpath(Path(page).parent / path) if path else page
        assert (ROOT / target).exists(), f"{page} -> {path}"
        assert not anchor or anchor in anchors(target), f"{page} -> {path}#{anchor}"


def test_the_index_names_every_page() -> None:
    named = {os.path.normpath(Path("docs") / path) for path, _ in links("docs/index.md")}
    assert set(PAGES) - named == {"docs/index.md"}


def test_every_picture_is_shown() -> None:
    text = "".join(map(text_of, PAGES))
    assert [path.name for path in (ROOT / "docs/pictures").iterdir() if f"pictures/{path.name}" not in text] == []
