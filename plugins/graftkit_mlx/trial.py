"""Whether mlx-lm computes what transformers computes, tried on a twin before anything is trained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from graftkit import PlannedModel
from graftkit.errors import ExportError
from graftkit.exporting.shards import save_tensors, write_shards
from graftkit.interfaces.architecture import is_multimodal
from graftkit.interfaces.json_file import write_json
from graftkit.interfaces.temporary import temporary_folder

from graftkit_mlx.child import ask
from graftkit_mlx.settings import mlx_settings

__all__ = ["Trial", "trial_of", "window_notices"]

_TOKENS = 40
_TOLERANCE = 5e-3
"""A share of the largest logit: Gemma's embeddings are scaled by a number in bfloat16."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a trial.

    Attributes:
        refusal: Why mlx-lm can't run the architecture; None where it can.
        windows: Whether it computes what transformers does with windows of fewer tokens than the sequence has, too.
        made: Those of mlx-lm's tensors that each of the architecture's is made of, one after the other in its rows.
    """

    refusal: str | None = None
    windows: bool = True
    made: Mapping[str, list[str]] = field(default_factory=dict)


_WINDOWS = ("sliding_window", "attention_chunk_size")
_DONE: dict[str, Trial] = {}


def trial_of(planned: PlannedModel) -> Trial:
    """Has mlx-lm compute a sequence with the model's twin; once for each configuration.

    Args:
        planned: The model.
    """
    key = json.dumps(planned.config, sort_keys=True, default=str)
    if key not in _DONE:
        _DONE[key] = _try(planned)
    return _DONE[key]


def window_notices(planned: PlannedModel) -> list[str]:
    """Says where mlx-lm has no windows, and the model has.

    Args:
        planned: The model.
    """
    window = next((planned.config[key] for key in _WINDOWS if planned.config.get(key)), None)
    if window is None or trial_of(planned).windows:
        return []
    told = f"mlx-lm attends to all tokens, where the model attends to {window:,}"
    return [f"{told}: beyond so many it computes something else"]


def _try(planned: PlannedModel) -> Trial:
    if is_multimodal(planned.config):
        return Trial("the towers of a multimodal model have no such form yet: export merged or peft")
    first = _try_one(planned, short_windows=True)
    if first.refusal is None:
        return first
    other = _try_one(planned, short_windows=False)
    return Trial(windows=False, made=other.made) if other.refusal is None else first


def _try_one(planned: PlannedModel, *, short_windows: bool) -> Trial:
    kind = planned.config["model_type"]
    try:
        twin = planned.twin(short_windows=short_windows)
    except Exception as error:
        return Trial(f"a small {kind} model, by which mlx-lm is tried, can't be built: {error}")
    network: Any = twin.network
    rows = network.get_input_embeddings().weight.shape[0]
    ids = (torch.arange(_TOKENS) * 7 % (rows - 2) + 2).tolist()
    with temporary_folder() as folder:
        write_shards(folder, twin.tensors.items())
        own = {name: tensor.clone() for name, tensor in twin.own.items()}  # views can not be saved
        save_tensors(own, folder / "architecture.safetensors")
        write_json(folder / "config.json", _plain(mlx_settings(twin.config)))
        try:
            found = ask("try_twin", folder, folder, ids=ids)
        except ExportError as error:
            return Trial(f"mlx-lm can't run this {kind} model: {error}")
    with torch.no_grad():
        expected = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()
    off = ((torch.tensor(found["logits"]) - expected).abs().max() / expected.abs().max()).item()
    if not off <= _TOLERANCE:
        return Trial(
            f"mlx-lm computes something else with a {kind} model of this configuration: logits differ by "
            f"{off:.0%} of the largest"
        )
    return Trial(made=found["made"])


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(config, default=str))
    return plain
