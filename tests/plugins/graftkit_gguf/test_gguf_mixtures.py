"""Mixtures of experts in 8 and 4 bits: llama.cpp computes what is read but where choices of experts are nearly even."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import settings
from export_matrix import ARCHITECTURES
from gguf_models import write_model
from graftkit import Probe, ProofRequest
from graftkit.flow.exports import rounding
from graftkit.flow.exports.probes import Probes, compare
from graftkit.flow.exports.rounding import ReadComparison, read_logits
from graftkit.testing import tiny_model_folder
from graftkit_gguf.export_reading import export_reading
from graftkit_gguf.model_exporter import GgufExporter
from torch import nn

PROBES = [Probe(tuple(range(40 + n, 90 + n)), (4, 9, 14, 19, 24, 29, 34, 39, 44, 49)) for n in range(0, 150, 50)]


class Proof:
    """A tiny mixture in a GGUF file, and what llama.cpp computes with it, once for each set of positions."""

    def __init__(self, folder: Path, name: str, type_: str) -> None:
        kind, changes = ARCHITECTURES[name]
        write_model(folder / "model.gguf", tiny_model_folder(folder / "model", **{**settings(kind), **changes}), type_)
        self.folder = folder

    def within(self) -> tuple[bool, ReadComparison]:
        """Tells whether llama.cpp computes what is read, as a proof does, and with what that was compared."""
        request = ProofRequest(self.folder, PROBES, lambda: nn.Identity())
        read = read_logits(export_reading(self.folder / "model.gguf"), request, self.folder)
        probes = Probes([list(probe.ids) for probe in PROBES], read.exact, [list(probe.positions) for probe in PROBES])
        asked = read.comparison(probes, GgufExporter().tolerance())
        found = GgufExporter().logits(ProofRequest(self.folder, asked.probes.requested, lambda: nn.Identity()))
        return compare(asked.probes, found, log_probabilities=True).within(asked.tolerance), asked


@pytest.mark.parametrize("type_", ["q8_0", "q4_0"])
@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "qwen3_moe"])
def test_llama_cpp_computes_what_is_read_and_other_experts_are_found(
    name: str, type_: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proof = Proof(tmp_path, name, type_)
    within, asked = proof.within()
    assert within and asked.set_aside <= sum(len(probe.positions) for probe in PROBES) / 2, asked.set_aside
    monkeypatch.setattr(rounding, "load_plain_model", permuted)
    assert not proof.within()[0], "two of the experts of one layer have changed places"


def permuted(*given: Any) -> nn.Module:
    """Loads the model with the first two experts of its last layer in each other's place."""
    model = load(*given)
    experts = [weight for weight in model.parameters() if weight.ndim == 3][-2:]
    for weight in experts:
        weight.data = weight.data[torch.tensor([1, 0, *range(2, len(weight))])]
    return model


load = rounding.load_plain_model
