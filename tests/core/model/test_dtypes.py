"""In bfloat16 every tensor has the type that transformers gives it, and training computes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from architectures import settings
from graftkit.interfaces.architecture import model_class
from graftkit.model.adapt import adapt
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.model.packing import choose_packing
from graftkit.model.parts import is_text
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from reference import training_loss
from transformers import AutoConfig

CPU = torch.device("cpu")
ODD_CONSTANTS: dict[str, dict[str, Any]] = {
    "falcon_h1": {"ssm_multipliers": [0.35, 0.7, 0.1, 0.3, 1.3]},
    "gemma3_text": {"hidden_size": 80, "head_dim": 16},
}
"""Settings from which a model computes constants that bfloat16 rounds."""


def types(network: Any) -> dict[str, torch.dtype]:
    """The type of every tensor outside of frozen linear layers, buffers that no file has among them."""
    frozen = tuple(f"{path}." for path, module in network.named_modules() if isinstance(module, FrozenLinear))
    every = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return {name: tensor.dtype for name, tensor in every if not name.startswith(frozen)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_types_are_those_of_transformers_and_the_loss_is_near_that_of_float32(name: str, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", **settings(name))
    files, losses = HuggingFaceSource().open(str(folder)), []
    packing, layers = choose_packing(files.config), [layer.path for layer in check_base_model(files)]
    for dtype in (torch.float32, torch.bfloat16):
        network: Any = load_base_model(files, Dense(), device=CPU, dtype=dtype)
        adapt(network, Lora(LoraConfig(rank=4)), layers, seed=0)
        losses.append(training_loss(network, packing, CPU))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    kind: Any = model_class(AutoConfig.from_pretrained(folder))
    own, theirs = types(network), types(kind.from_pretrained(folder, dtype=torch.bfloat16))
    text = is_text(network)
    assert {path: type for path, type in own.items() if text(path)} == {
        path: theirs[path] for path in own if text(path)
    }


@pytest.mark.parametrize("name", ["falcon_h1", "gemma3_text", "gptj", "llama", "xglm"])
def test_constants_that_no_file_holds_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """GPT-J's rotary frequencies were computed in bfloat16, where transformers computes them in float32."""
    folder = tiny_model_folder(tmp_path, **{**settings(name), **ODD_CONSTANTS.get(name, {})})
    own: Any = load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU, dtype=torch.bfloat16)
    kind: Any = model_class(AutoConfig.from_pretrained(folder))
    theirs: dict[str, torch.Tensor] = dict(kind.from_pretrained(folder, dtype=torch.bfloat16).named_buffers())
    found = dict(own.named_buffers())
    assert found.keys() - own.state_dict().keys()
    assert all(torch.equal(found[path], theirs[path]) for path in found.keys() & theirs.keys())
