"""Whether mlx-lm computes what transformers computes is found out before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from architectures import settings
from graftkit.interfaces.exporter import Twin
from graftkit.model.twin import published_twin
from graftkit.testing.tiny import LEFT_OUT
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_mlx.exporter import MlxExporter
from graftkit_mlx.lora_exporter import MlxLoraExporter
from graftkit_mlx.settings import mlx_settings
from graftkit_mlx.trial import trial_of
from transformers import CONFIG_MAPPING

THETA = {"rope_theta": 500000.0, "rope_type": "default"}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


class Planned:
    adapter = Lora(LoraConfig(rank=4))
    change = None
    saved_modules = ()

    def __init__(self, kind: str, **changes: Any) -> None:
        own = {key: value for key, value in settings(kind).items() if value is not LEFT_OUT}
        self.config = CONFIG_MAPPING[kind](**{**own, **changes}).to_dict()

    def twin(self, *, short_windows: bool = True) -> Twin:
        return published_twin(self.config, short_windows=short_windows)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [("llama", {"rope_parameters": LLAMA3}), ("qwen2", {"rope_parameters": THETA})],
)
def test_mlx_computes_what_transformers_does_where_the_older_keys_are_written(
    kind: str, changes: Mapping[str, Any]
) -> None:
    trial = trial_of(Planned(kind, **changes))  # type: ignore[arg-type]
    assert trial.refusal is None and trial.windows, trial.refusal


def test_the_experts_of_a_mixture_are_found_in_its_stacks() -> None:
    exporter, planned = MlxExporter(), Planned("mixtral")
    assert exporter.refusal(planned) is None  # type: ignore[arg-type]
    made = trial_of(planned).made  # type: ignore[arg-type]
    switch = "model.layers.1.block_sparse_moe.switch_mlp"
    assert made["model.layers.1.mlp.experts.gate_up_proj"] == [f"{switch}.{n}_proj.weight" for n in ("gate", "up")]
    assert made["model.layers.1.mlp.experts.down_proj"] == [f"{switch}.down_proj.weight"]
    assert made["model.layers.1.mlp.gate.weight"] == ["model.layers.1.block_sparse_moe.gate.weight"]


def test_what_mlx_does_not_know_is_refused_by_its_own_words() -> None:
    refusal = MlxExporter().refusal(Planned("opt"))  # type: ignore[arg-type]
    assert refusal is not None and refusal.endswith("ValueError: Model type opt not supported."), refusal


@pytest.mark.parametrize("kind", ["gemma3", "qwen2_5_vl"])
@pytest.mark.parametrize("exporter", [MlxExporter(), MlxLoraExporter()])
def test_multimodal_models_are_refused(exporter: MlxExporter | MlxLoraExporter, kind: str) -> None:
    planned: Any = Planned(kind)
    assert exporter.refusal(planned) == "the towers of a multimodal model have no such form yet: export merged or peft"


def test_a_window_that_mlx_has_not_is_told() -> None:
    planned: Any = Planned("mistral", sliding_window=4096)
    exporter = MlxExporter()
    assert exporter.refusal(planned) is None
    (notice,) = exporter.notices(planned)
    assert "where the model attends to 4,096: beyond so many it computes something else" in notice
    assert exporter.notices(Planned("llama")) == []  # type: ignore[arg-type]


def test_a_rotary_base_that_mlx_would_not_find_is_written_where_it_looks() -> None:
    """Of a Llama it reads `rope_theta` and takes 10,000 where there is none; transformers 5 keeps it elsewhere."""
    config = Planned("llama", rope_parameters=LLAMA3).config
    assert "rope_theta" not in config
    written = mlx_settings(config)
    assert written["rope_theta"] == 500000.0
    assert written["rope_scaling"] == {key: value for key, value in LLAMA3.items() if key != "rope_theta"}
    assert mlx_settings(Planned("llama", rope_parameters=THETA).config)["rope_scaling"] is None
