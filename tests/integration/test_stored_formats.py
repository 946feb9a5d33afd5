"""Formats of weights that nobody knows: refused in the plan and in the run alike, before a row is encoded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit import StoredWeight, TensorInfo
from graftkit.errors import ModelError
from graftkit.flow.events import Event, StageStarted
from graftkit_models.huggingface import HuggingFaceFolder, HuggingFaceSource
from integration.conftest import RecipeMaker

WEIGHT = "model.layers.1.mlp.up_proj.weight"


class NobodysFolder(HuggingFaceFolder):
    @property
    def tensors(self) -> Mapping[str, TensorInfo]:  # type: ignore[override]
        found = super().tensors
        return {**found, WEIGHT: TensorInfo(found[WEIGHT].shape, "nobodys-int3")}

    def read(self) -> Iterator[tuple[str, Any]]:
        return ((name, self.tensor(name)) for name in self.tensors)

    def tensor(self, name: str) -> Any:
        found = super().tensor(name)
        return StoredWeight("nobodys-int3", tuple(found.shape), {"codes": found}, {}) if name == WEIGHT else found


class NobodysSource(HuggingFaceSource):
    def accepts(self, reference: str) -> bool:
        return False

    def open(self, reference: str) -> HuggingFaceFolder:
        opened = super().open(reference)
        return NobodysFolder(reference, opened.folder, opened.config, opened.stored, opened.matrices, opened.states)


@pytest.mark.parametrize("quantizer", ["nf4", "none"])
def test_a_kind_that_nobody_knows_is_refused_in_plan_and_run(
    quantizer: str, make_recipe: RecipeMaker, tiny_model: Path, tmp_path: Path
) -> None:
    model = {"use": "integration.test_stored_formats:NobodysSource", "path": str(tiny_model)}
    recipe = make_recipe(model=model, quantizer=quantizer)
    events: list[Event] = []
    told = f"tensor '{WEIGHT}' is stored as nobodys-int3, which the recipe's quantizer does not take over"
    with pytest.raises(ModelError, match=told) as caught:
        graftkit.run(recipe, out=tmp_path / "run", on_event=events.append)
    assert caught.value.hint and "Name a quantizer that keeps nobodys-int3" in caught.value.hint
    assert not (tmp_path / "run").exists()
    assert "corpus" not in [event.stage for event in events if isinstance(event, StageStarted)]
    with pytest.raises(ModelError, match=told) as planned:
        graftkit.plan(recipe, as_run=True)
    assert str(planned.value) == str(caught.value)
