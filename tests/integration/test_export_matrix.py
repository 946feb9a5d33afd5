"""Exporter x adapter x quantizer x architecture x vocabulary: each cell is proved, or refused for the reason awaited.

The architectures here stand for what differs in exports; `make matrix` tries them all.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from export_matrix import EXPORTERS, Combination, Workshop, all_pairs, awaited

CHOSEN = ("gemma3", "qwen3_moe", "gpt2")


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("matrix"))


PAIRS = list(enumerate(all_pairs(CHOSEN)))
"""With each two exporters take turns, so that each is tried with about ten; `make matrix` tries all of them."""


@pytest.mark.parametrize(("number", "combination"), PAIRS, ids=[str(combination) for _, combination in PAIRS])
def test_each_export_is_proved_or_refused_for_the_reason_awaited(
    workshop: Workshop, number: int, combination: Combination, tmp_path: Path
) -> None:
    exporters = [EXPORTERS[(number + place) % len(EXPORTERS)] for place in (0, 2)]
    found = workshop.try_exporters(combination, tmp_path / "run", exporters)
    reasons = {exporter: awaited(combination, exporter) for exporter in exporters}
    assert found.keys() == reasons.keys()
    for exporter, reason in reasons.items():
        assert reason in found[exporter], f"{exporter}: {found[exporter]}"
