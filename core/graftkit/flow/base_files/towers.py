"""Makes sure that exports hold a multimodal model's towers as they were."""

from __future__ import annotations

from pathlib import Path

import torch

from graftkit.errors import ExportError
from graftkit.model.adapt import AdaptedModel

__all__ = ["check_towers"]


def check_towers(model: AdaptedModel, folder: Path) -> None:
    """Makes sure that what an export holds of a multimodal model's towers is what the base model's file has.

    Text does not run through towers, so that no logits would tell.

    Args:
        model: The trained model.
        folder: The export, whose safetensors files are looked at.

    Raises:
        ExportError: A tower's tensor differs.
    """
    if not model.towers:
        return
    from safetensors import safe_open

    own = model.network.state_dict()
    towers = {name: own[name].cpu() for name in sorted(model.towers)}
    towers |= dict(model.published(towers.items()))
    for path in sorted(folder.rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in sorted(towers.keys() & set(file.keys())):
                found, expected = file.get_tensor(name), towers[name]
                if found.dtype != expected.dtype or not torch.equal(found, expected):
                    raise ExportError(
                        f"'{name}', which training does not touch, is not as the base model has it",
                        where=str(path),
                        hint="The exporter changes tensors of a tower: mend it.",
                    )
