"""Messages say "an adapter"."""

from __future__ import annotations

import pytest
from graftkit.articles import counted, with_article
from graftkit.interfaces.kinds import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_has_its_article(kind: str) -> None:
    article = "an" if kind in ("adapter", "exporter", "initializer", "objective") else "a"
    assert with_article(kind) == f"{article} {kind}"


def test_a_number_of_things_is_as_it_is_shown() -> None:
    """What is rounded to one is one."""
    shown = [counted(0.97, "epoch", form=".2g"), counted(0.996, "epoch", form=".2g"), counted(1.0, "step", form=".1f")]
    assert shown == ["0.97 epochs", "1 epoch", "1.0 steps"]
    assert [counted(n, "query", "queries") for n in (0, 1, 1000)] == ["0 queries", "1 query", "1,000 queries"]
