"""What the tests of documents share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forked_children import children_forked


@pytest.fixture(scope="module", autouse=True)
def forked_children() -> Iterator[None]:
    """Proofs and commands are forks of a process that has imported torch."""
    with children_forked():
        yield
