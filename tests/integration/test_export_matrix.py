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


@pytest.mark.parametrize("combination", all_pairs(CHOSEN), ids=str)
def test_each_export_is_proved_or_refused_for_the_reason_awaited(
    workshop: Workshop, combination: Combination, tmp_path: Path
) -> None:
    found = workshop.try_exporters(combination, tmp_path / "run")
    reasons = {exporter: awaited(combination, exporter) for exporter in EXPORTERS}
    assert found.keys() == reasons.keys()
    for exporter, reason in reasons.items():
        assert reason in found[exporter], f"{exporter}: {found[exporter]}"
