"""In bfloat16 every tensor has the type that transformers gives it, and training computes in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from architectures import settings
from graftkit.interfaces.architecture import model_class
from graftkit.model.adapt import adapt
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import check_base_model, load_base_model
from graftkit.model.packing import choose_packing, use_packing
from graftkit.model.parts import is_text
from graftkit.store.token_store import Example
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.training.batch import pack
from graftkit.training.loss import TokenLoss
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.lora import Lora
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from transformers import AutoConfig

CPU = torch.device("cpu")


def types(network: Any) -> dict[str, torch.dtype]:
    """The type of every tensor outside of frozen linear layers, buffers that no file has among them."""
    frozen = tuple(f"{path}." for path, module in network.named_modules() if isinstance(module, FrozenLinear))
    every = [*network.named_parameters(remove_duplicate=False), *network.named_buffers(remove_duplicate=False)]
    return {name: tensor.dtype for name, tensor in every if not name.startswith(frozen)}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_types_are_those_of_transformers_and_the_loss_is_near_that_of_float32(name: str, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", **settings(name))
    files, losses = HuggingFaceSource().open(str(folder)), []
    random = np.random.default_rng(0)
    rows = [
        Example(random.integers(0, 256, n), (random.random(n) < 0.6).astype(np.float32), 1) for n in (45, 9, 17, 30)
    ]
    packing = choose_packing(files.config)
    for dtype in (torch.float32, torch.bfloat16):
        network: Any = load_base_model(files, Dense(), device=CPU, dtype=dtype)
        adapt(network, Lora(LoraConfig(rank=4)), [layer.path for layer in check_base_model(files)], seed=0)
        use_packing(network, packing)
        loss = TokenLoss(network, packed=packing.packed)
        passes = [rows] if packing.packed else [[example] for example in rows]
        losses.append(sum(loss.backward(pack(group, CPU), 1.0).item() for group in passes))
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    own = types(load_base_model(files, Dense(), device=CPU, dtype=torch.bfloat16))
    reference: Any = model_class(AutoConfig.from_pretrained(folder))
    theirs = types(reference.from_pretrained(folder, dtype=torch.bfloat16))
    text = is_text(network)
    assert {path: type for path, type in own.items() if text(path)} == {
        path: theirs[path] for path in own if text(path)
    }
