"""The adapter alone, as mlx-lm puts it on a base model that it has quantized or not."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from graftkit import CardRequest, ExportCard, LoadingExample, PlannedModel, ProofRequest, TrainedModel
from graftkit.errors import ExportError
from graftkit.exporting.lora_matrices import check_lora_alone, lora_matrices, lora_scale
from graftkit.exporting.shards import save_tensors
from graftkit.interfaces.json_file import write_json

from graftkit_mlx.child import mlx_is_there
from graftkit_mlx.names import layout_of
from graftkit_mlx.program import compute_logits
from graftkit_mlx.settings import mlx_settings
from graftkit_mlx.trial import Trial, trial_of, window_notices

__all__ = ["MlxLoraExporter"]

_FORM, _INSTEAD = "an adapter of mlx-lm", "Export mlx, the whole model with the adapter merged in."
_WEIGHTS, _CONFIG = "adapters.safetensors", "adapter_config.json"
_TOLERANCE = 5e-3
"""What mlx-lm rounds, as a share of the largest logit: see `trial.py`."""


class MlxLoraExporter:
    """Writes adapters.safetensors and adapter_config.json, as `mlx_lm.lora` does."""

    proved_with = ("mlx_lm", "mlx")

    def refusal(self, planned: PlannedModel) -> str | None:
        """Only LoRA, on linear layers that mlx-lm has by themselves, has a form."""
        if not mlx_is_there():
            return "mlx-lm, by which it is tried, is not installed: pip install 'graftkit[mlx]'"
        try:
            check_lora_alone(planned, _FORM, _INSTEAD)
            trial = trial_of(planned)
            if trial.refusal is None:
                _check_layers(planned, trial)
        except ExportError as error:
            return f"{error.message}. {error.hint}" if error.hint else error.message
        return trial.refusal

    def notices(self, planned: PlannedModel) -> Sequence[str]:
        """Says where mlx-lm has no windows."""
        return window_notices(planned)

    def export(self, trained: TrainedModel, folder: Path) -> Mapping[str, Any]:
        """Writes both files. Each layer's scale is in its second matrix; a lower rank is filled up with zeros."""
        fields, found = trained.adapter.peft_config() or {}, list(lora_matrices(trained, _INSTEAD))
        rank = max(len(a) for _, a, _ in found)
        tensors: dict[str, torch.Tensor] = {}
        for layer, a, b in found:
            filled = torch.nn.functional.pad(a.T, (0, rank - len(a)))
            tensors[f"{layer}.lora_a"] = filled.contiguous()
            scaled = b.T * lora_scale(fields, layer, len(a))
            tensors[f"{layer}.lora_b"] = torch.nn.functional.pad(scaled, (0, 0, 0, rank - len(a))).contiguous()
        save_tensors(tensors, folder / _WEIGHTS)
        parameters = {"rank": rank, "scale": 1.0, "dropout": 0.0, "keys": [layer for layer, _, _ in found]}
        layers = int(trained.config["num_hidden_layers"])
        config = {"fine_tune_type": "lora", "num_layers": layers, "lora_parameters": parameters}
        write_json(folder / _CONFIG, config)
        return {"format": "mlx-lora", "rank": rank, "layers": len(found)}

    def tolerance(self) -> float:
        """Returns what mlx-lm rounds."""
        return _TOLERANCE

    def logits(self, request: ProofRequest) -> list[torch.Tensor]:
        """Loads the adapter with mlx-lm onto the weights that it was trained on, written as float32."""
        for name in (_WEIGHTS, _CONFIG):
            if not (request.folder / name).is_file():
                raise ExportError(f"there is no {name}", where=str(request.folder))
        with _base(request) as base:
            return compute_logits(base, request, adapter=request.folder)

    def card(self, request: CardRequest) -> ExportCard:
        """Says how mlx-lm puts the adapter on its base model."""
        base = shlex.quote(request.base)
        commands = [f'mlx_lm.generate --model {base} --adapter-path . --prompt "Hello"']
        commands += [f"mlx_lm.server --model {base} --adapter-path ."]
        return ExportCard(
            "mlx", "adapter", tags=["mlx", "lora"], loading=[LoadingExample("mlx-lm", "sh", "\n".join(commands))]
        )


def _check_layers(planned: PlannedModel, trial: Trial) -> None:
    """Makes sure that mlx-lm has each adapted layer under its own path, as a matrix `[out, in]` of its own.

    Raises:
        ExportError: It does not.
    """
    if planned.expert_targets:
        raise ExportError(f"the experts '{planned.expert_targets[0]}' have no form in {_FORM}", hint=_INSTEAD)
    if planned.unties:
        raise ExportError(
            "the base model's output layer and embedding are one matrix, of which one is adapted", hint=_INSTEAD
        )
    own = {layout_of(name) for name, parts in trial.made.items() if list(parts) == [name]}
    for layer in planned.targets:
        if layout_of(f"{layer}.weight") not in own:
            raise ExportError(f"mlx-lm has no layer '{layer}', or another matrix there", hint=_INSTEAD)


@contextmanager
def _base(request: ProofRequest) -> Iterator[Path]:
    """Gives the base model that was trained on as a folder that mlx-lm loads, which the calls of a proof share."""
    with tempfile.TemporaryDirectory() as folder:
        path = (request.workspace or Path(folder)) / "mlx-base"
        if not path.exists():
            base: Any = request.base()
            base.save_pretrained(path)
            write_json(path / "config.json", mlx_settings(base.config.to_dict()))
        yield path
