"""What a stranger's adapter_config.json may ask peft to build."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from graftkit.errors import ExportError
from graftkit.exporting.peft_folder import load_adapter, resized
from graftkit.interfaces.peft_config import LAYER_METHODS, check_adapter_config
from safetensors.torch import load_file, save_file
from torch import nn

CONFIG: dict[str, Any] = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["layer"], "bias": "none"}
LORA = {
    "base_model.model.layer.lora_A.weight": torch.ones(4, 16),
    "base_model.model.layer.lora_B.weight": torch.ones(8, 4),
}


class Base(nn.Module):
    """A model of one layer, as peft wants to see it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 8)
        self.config = SimpleNamespace(model_type="none", to_dict=dict, get=lambda *_: None, tie_word_embeddings=False)

    def forward(self, x: torch.Tensor) -> Any:
        return self.layer(x)

    def prepare_inputs_for_generation(self) -> None:
        """Of a causal language model."""


def write(folder: Path, **changed: Any) -> Path:
    (folder / "adapter_config.json").write_text(json.dumps({**CONFIG, **changed}))
    save_file(LORA, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.parametrize(
    "changed",
    [
        {"layer_replication": [[0, 1]] * 3000},
        {"layer_replication": [[0, 2]]},
        {"r": 10**7},
        {"r": -(10**7)},
        {"rank_pattern": {"layer": 10**7}},
        {"target_modules": [f"layer{n}" for n in range(100_000)]},
        {"exclude_modules": [f"layer{n}" for n in range(100_000)]},
        {"target_parameters": [f"layer{n}" for n in range(100_000)]},
        {"rank_pattern": {f"layer{n}": 4 for n in range(100_000)}},
        {"alpha_pattern": {f"layer{n}": 4 for n in range(100_000)}},
        {"layers_to_transform": list(range(100_000))},
        {"trainable_token_indices": {"embed_tokens": list(range(100_000))}},
        {"init_lora_weights": "pissa_niter_1000000000"},
        {"loftq_config": {"loftq_iter": 10**9}},
        {"peft_type": "VERA", "r": 10**7},
        {"peft_type": "FOURIERFT", "n_frequency": 10**9},
        {"peft_type": "VBLORA", "num_vectors": 10**9},
        {"peft_type": "OFT", "num_cayley_neumann_terms": 10**9},
    ],
)
def test_what_no_stored_tensor_explains_is_refused_before_peft(changed: dict[str, Any], tmp_path: Path) -> None:
    """peft builds what the configuration asks for, and compares it with the file afterwards: in minutes, or never."""
    start = time.monotonic()
    with pytest.raises(ExportError, match=r"its 'layer_replication'|asks for"):
        load_adapter(Base(), write(tmp_path, **changed))
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"lora_alpha": 10**9, "total_step": 10**9},
        {"peft_type": "VERA", "projection_prng_key": 2**31},
        {"peft_type": "ROAD", "group_size": 64},
        {"alora_invocation_tokens": [128_000]},
    ],
)
def test_factors_seeds_and_ids_are_no_sizes(fields: dict[str, Any], tmp_path: Path) -> None:
    check_adapter_config(write(tmp_path, **fields))


@pytest.mark.parametrize("method", sorted(LAYER_METHODS))
def test_defaults_of_every_method_are_allowed(method: str, tmp_path: Path) -> None:
    """As peft itself writes them."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING, PeftType

    fields = {"token_indices": [0, 1]} if method == "TRAINABLE_TOKENS" else {"target_modules": ["layer"]}
    fields |= {"total_step": 10} if method == "ADALORA" else {}
    fields |= {"boft_block_size": 4} if method == "BOFT" else {}
    fields |= {"feedforward_modules": ["layer"]} if method == "IA3" else {}
    PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(method)](**fields).save_pretrained(str(tmp_path))
    tensor = "base_model.model.layer.weight"  # VBLORA has 256 vectors of 256, WAVEFT and FOURIERFT up to 2592 numbers
    save_file({tensor: torch.zeros(2592)}, tmp_path / "adapter_model.safetensors")
    check_adapter_config(tmp_path)


def test_the_adapter_is_loaded_as_it_is_stored(tmp_path: Path) -> None:
    """Against the formula: the layer's own output plus alpha / r times B A x."""
    base = Base()
    x = torch.randn(3, 16)
    stored = load_file(write(tmp_path) / "adapter_model.safetensors")
    a, b = (stored[f"base_model.model.layer.lora_{side}.weight"] for side in "AB")
    expected = base.layer(x) + 2 * x @ a.T @ b.T
    loaded = load_adapter(base, tmp_path)
    assert not any(tensor.is_meta for tensor in loaded.state_dict().values())
    assert torch.allclose(loaded.eval()(x), expected, atol=1e-5)


def test_a_rank_that_is_not_the_files_takes_no_memory(tmp_path: Path) -> None:
    """One within the limit of the stored tensors' sizes: peft's own comparison is enough, since nothing was filled."""
    with pytest.raises((ExportError, RuntimeError)):
        load_adapter(Base(), write(tmp_path, r=16))


@pytest.mark.parametrize("ids", [[10**9], [40]])
def test_new_rows_follow_the_base_models(ids: list[int], tmp_path: Path) -> None:
    """The base model is given no billion of rows for one new token."""
    folder = write(tmp_path, trainable_token_indices={"embed_tokens": ids})
    embedding = SimpleNamespace(num_embeddings=32)
    model = SimpleNamespace(get_input_embeddings=lambda: embedding, resize_token_embeddings=None)
    with pytest.raises(ExportError, match="not those between"):
        resized(model, folder)
