"""What is asked of an adapter on the base model's own file, whose blocks a program may round as it likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit import ProofRequest
from graftkit.errors import ExportError
from graftkit.flow.exports import base_file_proof
from graftkit.flow.exports.base_file_proof import prove_on_base_file
from graftkit.flow.exports.probes import Probes
from graftkit.interfaces.exporter import OnBaseFile

TRAINED, BASE = torch.eye(3, 8) * 9, torch.eye(3, 8) * 4


class Exporter:
    """Its program is off by `base` on the base model, and by `adapted` with the adapter."""

    def __init__(self, base: float, adapted: float, *, same: bool = True, log_probabilities: bool = False) -> None:
        self.log_probabilities = log_probabilities
        self._found = OnBaseFile("base.gguf", same, [self._given(TRAINED, adapted)], [self._given(BASE, base)])

    def _given(self, logits: torch.Tensor, off: float) -> torch.Tensor:
        found = (logits + 100).log_softmax(1) if self.log_probabilities else logits.clone()
        found[1, 2] += off
        return found

    def on_base_file(self, request: ProofRequest) -> OnBaseFile | None:
        return self._found


def proved(exporter: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    probes = Probes([[1, 2, 3]], [TRAINED])
    monkeypatch.setattr(ProofRequest, "run", lambda request, model: [BASE])
    request = ProofRequest(Path("export"), probes.requested, lambda: torch.nn.Identity())
    return prove_on_base_file(exporter, probes, request, 1e-4)


@pytest.mark.parametrize("log_probabilities", [False, True])
def test_it_may_be_about_as_far_off_as_the_base_alone(log_probabilities: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    times = base_file_proof._OF_THE_BASE
    near = Exporter(0.2, 0.19 * times, log_probabilities=log_probabilities)
    found = proved(near, monkeypatch)
    assert found.max_abs_diff == pytest.approx(0.19 * times, rel=1e-3) and found.tolerance > found.max_abs_diff
    assert found.base_max_abs_diff == pytest.approx(0.2, rel=1e-3) and found.same_weights
    with pytest.raises(ExportError, match=r"on base\.gguf itself .* where they differ by 0\.2 without"):
        proved(Exporter(0.2, 0.21 * times, log_probabilities=log_probabilities), monkeypatch)


def test_where_nothing_is_rounded_it_may_be_off_by_what_the_format_explains(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proved(Exporter(0, 8e-4), monkeypatch).tolerance == pytest.approx(9e-4)
    with pytest.raises(ExportError, match="itself"):
        proved(Exporter(0, 1e-3), monkeypatch)


def test_a_number_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ExportError, match="differ by inf"):
        proved(Exporter(0.1, float("nan")), monkeypatch)


def test_of_other_weights_nothing_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = proved(Exporter(0.2, 7.0, same=False), monkeypatch)
    assert not found.same_weights and found.max_abs_diff == pytest.approx(7)


def test_an_exporter_without_such_a_file_has_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    assert proved(object(), monkeypatch) is None
    exporter = Exporter(0, 0)
    monkeypatch.setattr(exporter, "on_base_file", lambda request: None)
    assert proved(exporter, monkeypatch) is None
