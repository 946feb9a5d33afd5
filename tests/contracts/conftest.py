"""What the contracts' tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from forked_children import children_forked


@pytest.fixture(scope="module")
def forked_children() -> Iterator[None]:
    """Proofs are forks of a process that has imported torch."""
    with children_forked():
        yield
