"""Messages say "an adapter"."""

from __future__ import annotations

import pytest
from graftkit.articles import with_article
from graftkit.interfaces.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_article(kind: str) -> None:
    article = "an" if kind in ("adapter", "exporter", "initializer", "objective") else "a"
    assert with_article(kind) == f"{article} {kind}"
