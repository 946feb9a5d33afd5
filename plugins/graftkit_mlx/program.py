"""What mlx-lm computes with probes."""

from __future__ import annotations

from pathlib import Path

import torch
from graftkit import ProofRequest
from graftkit.interfaces.json_file import write_json
from graftkit.interfaces.temporary import temporary_folder
from safetensors import safe_open

from graftkit_mlx.child import ask

__all__ = ["compute_logits"]


def compute_logits(model: Path, request: ProofRequest, adapter: Path | None = None) -> list[torch.Tensor]:
    """Returns each probe's logits at its positions, `[positions, vocabulary]`, float32, with the weights as stored.

    Args:
        model: The folder that mlx-lm loads.
        request: Its probes are what it is asked, its workspace is for files meanwhile.
        adapter: The folder of an adapter of mlx-lm that it puts on the model; None for none.

    Raises:
        ExportError: It can't.
    """
    probes = request.probes
    with temporary_folder(request.workspace) as folder:
        write_json(folder / "probes.json", [{"ids": probe.ids, "positions": probe.positions} for probe in probes])
        ask("compute", model, folder, target=str(folder), adapter=str(adapter) if adapter else None)
        with safe_open(folder / "logits.safetensors", "pt") as file:
            return [file.get_tensor(str(number)) for number in range(len(probes))]
