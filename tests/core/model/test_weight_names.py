"""Files whose tensors have other names than the model's, against transformers' own loading of the same folder."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from graftkit.errors import ModelError
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import check_base_model
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

Tensors = dict[str, torch.Tensor]
CPU = torch.device("cpu")
IDS = torch.tensor([[5, 9, 200, 31, 7, 7, 90]])


def rewritten(tmp_path: Path, name: str, change: Callable[[Tensors], Tensors | None], **config: Any) -> Path:
    """Writes a tiny model whose file has been changed."""
    folder = tiny_model_folder(tmp_path / "model", **{**ARCHITECTURES[name], **config})
    tensors = load_file(folder / "model.safetensors")
    changed = change(tensors)
    save_file(tensors if changed is None else changed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def renamed(*pairs: tuple[str, str]) -> Callable[[Tensors], Tensors]:
    """Returns what renames tensors by regular expressions."""

    def rename(tensors: Tensors) -> Tensors:
        for pattern, replacement in pairs:
            tensors = {re.sub(pattern, replacement, name): tensor for name, tensor in tensors.items()}
        return tensors

    return rename


def load(folder: Path) -> Any:
    return load_base_model(HuggingFaceSource().open(str(folder)), Dense(), device=CPU)


@torch.no_grad()
def assert_loads_as_transformers_loads_it(folder: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    torch.testing.assert_close(load(folder)(input_ids=IDS).logits, reference(input_ids=IDS).logits, atol=1e-5, rtol=0)


def gpt2_of_old(tensors: Tensors) -> Tensors:
    """Names without the prefix, and the masks that each layer had."""
    mask = torch.ones(1, 1, 512, 512, dtype=torch.uint8).tril()
    masks = {f"h.{layer}.attn.bias": mask.clone() for layer in range(2)}
    masks |= {f"h.{layer}.attn.masked_bias": torch.tensor(-1e4) for layer in range(2)}
    return renamed((r"^transformer\.", ""))(tensors) | masks


def pythia(tensors: Tensors) -> None:
    for layer in range(2):
        place = f"gpt_neox.layers.{layer}.attention."
        tensors[f"{place}bias"] = torch.ones(1, 1, 512, 512, dtype=torch.bool).tril()
        tensors[f"{place}masked_bias"] = torch.tensor(-1e9)
        tensors[f"{place}rotary_emb.inv_freq"] = torch.rand(8)


def with_frequencies(tensors: Tensors) -> None:
    for layer in range(2):
        tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.rand(8)


def biased_routers(tensors: Tensors) -> None:
    """Gives the buffers that transformers stores values that matter."""
    names = [name for name in tensors if name.endswith("e_score_correction_bias")]
    assert names
    for name in names:
        tensors[name] = torch.tensor([3.0, -2.0, 5.0, 1.0])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gpt2", gpt2_of_old),
        ("gpt_neox", pythia),
        ("llama", with_frequencies),
        ("gptj", renamed()),
        ("bloom", renamed((r"^transformer\.", ""))),
        ("deepseek_v3", biased_routers),
        ("glm4_moe", biased_routers),
        ("stablelm", renamed()),
        ("nemotron", renamed()),
        ("opt", renamed((r"^model\.decoder", "decoder"))),
    ],
)
def test_what_files_have_held_is_loaded_as_transformers_loads_it(
    name: str, change: Callable[[Tensors], Tensors | None], tmp_path: Path
) -> None:
    assert_loads_as_transformers_loads_it(rewritten(tmp_path, name, change))


def test_a_routers_stored_bias_is_loaded_and_counts(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "deepseek_v3", biased_routers)
    buffers = [value for name, value in load(folder).named_buffers() if name.endswith("e_score_correction_bias")]
    assert [value.tolist() for value in buffers] == [[3.0, -2.0, 5.0, 1.0]]


@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "deepseek_v3", "ernie4_5_moe"])
def test_experts_that_lie_one_by_one_in_shards_are_put_together(name: str, tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "model", shards=6, **ARCHITECTURES[name])
    assert len(list(folder.glob("*.safetensors"))) > 2
    stored = HuggingFaceSource().open(str(folder)).tensors
    assert sum(".experts." in expert for expert in stored) >= 4 * 3
    assert_loads_as_transformers_loads_it(folder)


def test_an_expert_that_is_missing_is_told_before_anything_is_read(tmp_path: Path) -> None:
    gone = "model.layers.1.mlp.experts.3.down_proj.weight"
    folder = rewritten(tmp_path, "qwen2_moe", lambda tensors: {n: t for n, t in tensors.items() if n != gone})
    with pytest.raises(ModelError, match=r"experts\.down_proj' has shape \[3, 64, 32\].*\[4, 64, 32\]"):
        check_base_model(HuggingFaceSource().open(str(folder)))


def test_a_missing_buffer_that_the_model_stores_is_refused(tmp_path: Path) -> None:
    def without(tensors: Tensors) -> Tensors:
        return {name: tensor for name, tensor in tensors.items() if "e_score" not in name}

    with pytest.raises(ModelError, match=r"lacks 1 tensors: .*e_score_correction_bias"):
        load(rewritten(tmp_path, "deepseek_v3", without))


def test_a_bias_that_is_left_over_is_no_mask(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "gpt2", lambda t: t.update({"transformer.h.0.extra.bias": torch.zeros(1, 1, 4, 4)}))
    with pytest.raises(ModelError, match=r"unknown to the architecture, 1 tensors: transformer\.h\.0\.extra\.bias"):
        load(folder)


def test_integers_where_the_architecture_has_weights_are_called_quantized(tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    files = HuggingFaceSource().open(str(tiny_model_folder(tmp_path / "model")))
    files.tensors[name] = type(files.tensors[name])((64, 64), "I8")  # type: ignore[index]
    with pytest.raises(ModelError, match=rf"'{name}' is of type I8: the weights are already quantized"):
        check_base_model(files)


def test_a_tied_matrix_may_lie_under_either_name(tmp_path: Path) -> None:
    folder = rewritten(tmp_path, "llama", renamed((r"^model\.embed_tokens", "lm_head")))
    assert_loads_as_transformers_loads_it(folder)


def of_type(tmp_path: Path, config: dict[str, Any]) -> Any:
    folder = tiny_model_folder(tmp_path / "model")
    (folder / "config.json").write_text(json.dumps(config))
    return HuggingFaceSource().open(str(folder))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model_type": "florence2"}, "'florence2' is no causal language model"),
        ({"model_type": "clip"}, "'clip' is no causal language model"),
        ({"model_type": "t5"}, "'t5' is no causal language model"),
        ({"model_type": "bart"}, "'bart' is no causal language model"),
        ({"model_type": "vit"}, "'vit' is no causal language model"),
        (
            {"model_type": "olmo2", "architectures": ["Olmo2ForTokenClassification"]},
            "transformers has no Olmo2ForTokenClassification: a 'olmo2' model can't be given such a head",
        ),
        ({"model_type": "t5", "architectures": ["T5Model"]}, "an encoder with a decoder: a 't5' model can't be given"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(config: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        check_base_model(of_type(tmp_path, config))


def test_the_configuration_is_left_as_it_was_read(tmp_path: Path) -> None:
    scaling = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaling["original_max_position_embeddings"] = 256
    folder = tiny_model_folder(tmp_path / "model", rope_scaling=dict(scaling))
    config = json.loads((folder / "config.json").read_text())
    config.pop("rope_parameters", None)
    config |= {"rope_scaling": {"type": "llama3", **scaling}, "rope_theta": 5e5}
    (folder / "config.json").write_text(json.dumps(config))
    files = HuggingFaceSource().open(str(folder))
    load_base_model(files, Dense(), device=CPU)
    assert files.config == config
