"""Whatever numbers a stranger's config.json holds, nothing is built of them that the weights are not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import ModelError
from graftkit.flow.config_memory import ConfigModel
from graftkit.interfaces.config_numbers import check_numbers
from graftkit.interfaces.counts import check_counts
from graftkit.interfaces.model_source import TensorInfo
from graftkit.testing import tiny_model_folder
from graftkit.testing.architectures import ARCHITECTURES

from hostile.limits import Outcome, measure

LARGE = 10**6
HUGE = 10**10

CHANGES: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        f"{key} of {value:,}": ("llama", {key: value})
        for key in ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "head_dim")
        for value in (5000, LARGE, HUGE)
    },
    **{f"{key} of {value:,}": ("llama", {key: value}) for key in ("vocab_size", "num_key_value_heads", "num_labels",
       "max_position_embeddings") for value in (LARGE, HUGE)},
    "as many heads as wide": ("llama", {"num_attention_heads": 64, "head_dim": 60_000}),
    "one head": ("llama", {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 30_000}),
    "a list of layers": ("llama", {"layer_types": ["full_attention"] * LARGE}),
    "a longer list of layers": ("llama", {"layer_types": ["full_attention"] * (3 * LARGE)}),
    "lists of lists": ("llama", {"layers_of": [[[]] * 1000] * 1000}),
    "a list of layers, and as many layers": (
        "qwen2",
        {"layer_types": ["full_attention"] * 100_000, "num_hidden_layers": 100_000},
    ),
    "negative layers": ("llama", {"num_hidden_layers": -1}),
    "layers that are a text": ("llama", {"num_hidden_layers": "9" * 9}),
    "layers in a list": ("llama", {"num_hidden_layers": [LARGE]}),
    "experts": ("mixtral", {"num_local_experts": LARGE}),
    "many experts": ("mixtral", {"num_local_experts": 1000, "intermediate_size": 100_000}),
    "experts of each token": ("mixtral", {"num_experts_per_tok": HUGE}),
    "positions of gpt2": ("gpt2", {"n_positions": LARGE}),
    "many positions of gpt2": ("gpt2", {"n_positions": 30_000}),
    "huge positions of gpt2": ("gpt2", {"n_positions": HUGE}),
    "layers of gpt2": ("gpt2", {"n_layer": LARGE}),
    "width of gpt2": ("gpt2", {"n_inner": HUGE}),
    "a tower's layers": ("gemma3", {"vision_config": {"num_hidden_layers": LARGE}}),
    "a tower's width": ("gemma3", {"vision_config": {"hidden_size": 60_000, "intermediate_size": 900_000}}),
    "a tower's picture": ("gemma3", {"vision_config": {"image_size": LARGE, "patch_size": 1}}),
    "text layers beside a tower": ("gemma3", {"text_config": {"num_hidden_layers": LARGE}}),
    "a window": ("mistral", {"sliding_window": HUGE}),
    "a long context that is scaled": (
        "llama",
        {"max_position_embeddings": HUGE, "rope_scaling": {"rope_type": "dynamic", "factor": 1e9}},
    ),
}  # fmt: skip
"""What it is -> architecture, and what its config.json says otherwise."""

_CODE = """
import torch
from pathlib import Path
from graftkit.testing.hosts import isolated_host
from graftkit.flow.base_files.open_model import open_model
from graftkit.flow.preparation.check_model import choose_packing
from graftkit.interfaces.counts import count_weights
from graftkit.model.model_plan import plan_base_model
from graftkit.model.context import context_length
import transformers.models.llama.modeling_llama, transformers.models.gemma3.modeling_gemma3
import transformers.models.gpt2.modeling_gpt2, transformers.models.mixtral.modeling_mixtral
import transformers.models.qwen2.modeling_qwen2, transformers.models.mistral.modeling_mistral

torch.set_num_threads(1)
host = isolated_host()

def case(folder):
    files = open_model(host, folder)[1]
    context_length(files.config)
    packing = choose_packing(files.config, folder, count_weights(files.tensors))
    plan_base_model(files)
    return packing.reason
"""


def _merged(config: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    nested = {key: _merged(config.get(key, {}), value) for key, value in changes.items() if isinstance(value, dict)}
    return {**config, **changes, **nested}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    root = tmp_path_factory.mktemp("configs")
    honest = {
        name: tiny_model_folder(root / name, **ARCHITECTURES[name]) for name in {kind for kind, _ in CHANGES.values()}
    }
    folders = {name: str(_changed(root / f"case-{n}", honest[kind], changes))
               for n, (name, (kind, changes)) in enumerate(CHANGES.items())}  # fmt: skip
    return measure(_CODE, folders | {f"honest {name}": str(folder) for name, folder in honest.items()})


def _changed(folder: Path, honest: Path, changes: dict[str, Any]) -> Path:
    folder.mkdir()
    for path in honest.iterdir():
        (folder / path.name).symlink_to(path)
    config = json.loads((honest / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(_merged(config, changes)))
    return folder


@pytest.mark.parametrize("name", CHANGES)
def test_it_ends_soon_and_stays_small(name: str, outcomes: dict[str, Outcome]) -> None:
    outcome = outcomes[name]
    assert outcome.error in ("", "ModelError"), outcome
    outcome.assert_within_limits()
    assert outcome.error or "context" in name or "window" in name or "max_position" in name


@pytest.mark.parametrize("name", sorted({name for name, _ in CHANGES.values()}))
def test_what_is_not_changed_is_built(name: str, outcomes: dict[str, Outcome]) -> None:
    assert outcomes[f"honest {name}"].error == "", outcomes[f"honest {name}"]


@pytest.mark.parametrize("layers", [1001, 10**400, -3])
@pytest.mark.parametrize("key", ["num_hidden_layers", "vision_config.depth"])
def test_more_layers_than_any_model_has_are_refused_whatever_the_weights(layers: int, key: str) -> None:
    """20,000 tensors of one number each let 20,000 layers pass, which took a minute and a gigabyte to build."""
    outer, _, inner = key.partition(".")
    config = {outer: {inner: layers} if inner else layers}
    tensors = {f"x.{number}": TensorInfo((1,), "F32") for number in range(20_000)}
    with pytest.raises(ModelError, match=f"{re.escape(key)} is .*; up to 1,000 are read"):
        check_counts(config, tensors, "here")


def test_a_configuration_alone_has_no_more_layers_either(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "num_hidden_layers": 20_000}))
    with pytest.raises(ModelError, match="num_hidden_layers is 20,000"):
        ConfigModel.read(str(tmp_path))


NOTHING = (0, -1, True, 2.5, "64", float("nan"), 1 << 64)
IMPOSSIBLE = [
    *((key, value) for key in ("hidden_size", "vocab_size", "head_dim", "num_attention_heads") for value in NOTHING),
    *(("num_key_value_heads", value) for value in NOTHING),
    *((key, value) for key in ("num_experts", "moe_intermediate_size", "sliding_window") for value in NOTHING[1:]),
    *((key, value) for key in ("max_position_embeddings", "n_positions") for value in (-2, *NOTHING[2:])),
    *(("rope_theta", value) for value in (0, -1e4, float("inf"), float("nan"), True, "10000")),
    *(("rms_norm_eps", value) for value in (-1e-6, float("inf"), float("nan"), False)),
    ("rope_parameters", {"full_attention": {"rope_theta": float("inf")}}),
    ("rope_scaling", {"rope_type": "linear", "factor": 0}),
    ("layer_types", ["full_attention"] * 100_000),
    ("intermediate_size", [64, -1]),
    ("logits_scaling", float("nan")),
]
POSSIBLE = [
    *((key, None) for key in ("head_dim", "num_key_value_heads", "sliding_window", "intermediate_size", "rope_theta")),
    *((key, 0) for key in ("sliding_window", "num_experts", "moe_intermediate_size", "rms_norm_eps", "pad_token_id")),
    *((key, -1) for key in ("pad_token_id", "max_relative_positions", "eos_token_id", "feature_layer")),
    *(("max_position_embeddings", -1), ("intermediate_size", 0)),
    ("vision_config", {"hidden_size": 0, "layer_norm_eps": -1, "head_dim": None}),
    ("time_step_limit", [0.0, float("inf")]),
    ("intermediate_size", [64, 0, None]),
    ("rope_scaling", {"type": "mrope", "mrope_section": [16, 24, 24], "factor": None}),
    ("rope_theta", 10_000),
    ("layer_rope_theta", [10_000.0, 0, None]),
]


@pytest.mark.parametrize(("key", "value"), IMPOSSIBLE)
def test_numbers_that_no_model_has_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    """A head of no dimensions, or a vocabulary of -1, was taken for a key that is not there."""
    config = {"model_type": "llama", key: value}
    (tmp_path / "config.json").write_text(json.dumps(config))
    for read in (lambda: ConfigModel.read(str(tmp_path)), lambda: check_counts({"text_config": config}, {}, "here")):
        with pytest.raises(
            ModelError, match=rf"the configuration's {key}[\w.]* is .*; .* (is|are) (allowed|read)"
        ) as said:
            read()
        assert said.value.where in (str(tmp_path / "config.json"), "here")


@pytest.mark.parametrize("value", [5, True, 1e308, "LlamaForCausalLM", [5], {}])
def test_architectures_that_are_no_names_are_refused(value: Any) -> None:
    with pytest.raises(ModelError, match="the configuration's architectures is .*; a list of names"):
        check_counts({"architectures": value}, {}, "here")


@pytest.mark.parametrize(("key", "value"), POSSIBLE)
def test_numbers_of_configurations_in_use_are_read(key: str, value: Any) -> None:
    check_numbers({"model_type": "llama", key: value}, "here")
    check_numbers({"kv_lora_rank": 512, "head_dim": 0}, "here")
    check_numbers({"use_sliding_window": False, "sliding_window": -1}, "here")
