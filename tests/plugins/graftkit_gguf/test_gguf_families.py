"""Tiny models of each family as GGUF: llama.cpp computes what transformers computes, and what is read back does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf.quants import dequantize
from gguf_models import fused, write_llama
from graftkit.errors import ModelError
from graftkit.interfaces.architecture import EMBEDDING_POOLING, PooledBy, head_of, labels_of, with_head
from graftkit.interfaces.forward import pooled
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.model_plan import plan_base_model
from graftkit.model.stored_weights import check_stored_weights
from graftkit.testing import ModelSourceContract
from graftkit.testing.architectures import ARCHITECTURES
from graftkit.testing.tiny import LEFT_OUT, TINY_CONFIG
from graftkit_gguf.architectures import complete_config
from graftkit_gguf.block_weight import BlockWeight
from graftkit_gguf.blocks import BLOCKS
from graftkit_gguf.exported import check_exported
from graftkit_gguf.families import ARCHITECTURES as ARCHITECTURES_OF_GGUF
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import write_gguf
from graftkit_gguf.header import read_header
from graftkit_gguf.llama_cpp import LlamaCpp
from graftkit_gguf.model_tensors import stored_tensors
from graftkit_gguf.source import GgufSource
from graftkit_gguf.stored_types import StoredTypes
from graftkit_gguf.tensor_types import KEPT_TYPES
from graftkit_quantizers.dense import Dense
from graftkit_quantizers.stored import Stored
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForSequenceClassification

TOKENS, WINDOW = 80, 16
_GEMMA = {"query_pre_attn_scalar": 32, "sliding_window": WINDOW, "num_hidden_layers": 7}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
_YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
_LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
_LONG = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "long_factor": [1.0 + 0.3 * n for n in range(16)],
    "short_factor": [1.0 + 0.05 * n for n in range(16)],
}
_PART = {key: value[:12] if isinstance(value, list) else value for key, value in _LONG.items()}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama untied": ("llama", {"tie_word_embeddings": False}),
    "llama, rope linear": ("llama", {"rope_parameters": _LINEAR}),
    "llama, rope llama3": ("llama", {"rope_parameters": {**_LLAMA3, "original_max_position_embeddings": 8192}}),
    "llama, rope llama3 of its own": (
        "llama",
        {
            "rope_parameters": {
                **_LLAMA3,
                "rope_theta": 1e4,
                "low_freq_factor": 0.5,
                "high_freq_factor": 6.0,
                "original_max_position_embeddings": 64,
            }
        },
    ),
    "llama, rope yarn": ("llama", {"rope_parameters": _YARN}),
    "llama, rope yarn with its own attention factor": (
        "llama",
        {"rope_parameters": {**_YARN, "attention_factor": 0.8}},
    ),
    "llama, rope yarn with scales": ("llama", {"rope_parameters": {**_YARN, "mscale": 0.7, "mscale_all_dim": 1.2}}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral, rope llama3": (
        "mistral",
        {"sliding_window": None, "rope_parameters": {**_LLAMA3, "original_max_position_embeddings": 64}},
    ),
    "mixtral": ("mixtral", {}),
    "mixtral, rope linear": ("mixtral", {"rope_parameters": _LINEAR}),
    "qwen2": ("qwen2", {}),
    "qwen2, rope yarn": ("qwen2", {"rope_parameters": _YARN}),
    "qwen3": ("qwen3", {}),
    "qwen2_moe": ("qwen2_moe", {}),
    "qwen3_moe": ("qwen3_moe", {"norm_topk_prob": True}),
    "qwen3_moe, rope yarn": ("qwen3_moe", {"norm_topk_prob": True, "rope_parameters": _YARN}),
    "gemma2": ("gemma2", _GEMMA),
    "gemma3": ("gemma3_text", {**_GEMMA, "layer_types": LEFT_OUT}),
    "phi3": ("phi3", {"pad_token_id": 0}),
    "phi3, rope longrope": (
        "phi3",
        {"pad_token_id": 0, "rope_parameters": _LONG, "original_max_position_embeddings": 32},
    ),
    "phi3, rope longrope of a part, within the original context": (
        "phi3",
        {
            "pad_token_id": 0,
            "rope_parameters": {**_PART, "partial_rotary_factor": 0.75},
            "original_max_position_embeddings": 256,
            "max_position_embeddings": 1024,
        },
    ),
    "starcoder2": ("starcoder2", {"sliding_window": None}),
    "granite": (
        "granite",
        {"embedding_multiplier": 3.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3, "logits_scaling": 2.0},
    ),
    "granite, rope llama3": ("granite", {"rope_parameters": {**_LLAMA3, "original_max_position_embeddings": 64}}),
    "olmo2, rope linear": ("olmo2", {"rope_parameters": _LINEAR}),
    "smollm3": ("smollm3", {"pad_token_id": 0, "num_hidden_layers": 5}),
    "olmo2": ("olmo2", {}),
}


def settings(name: str) -> dict[str, Any]:
    kind, changes = FAMILIES[name]
    square = architecture_of({"model_type": ARCHITECTURES[kind]["model_type"]}).is_square
    width = {"hidden_size": 128 if square else 64, "head_dim": 32, "num_attention_heads": 4}
    sizes = {**width, "intermediate_size": 96}
    found = {**TINY_CONFIG, **ARCHITECTURES[kind], **sizes, "moe_intermediate_size": 32, **changes}
    return {key: value for key, value in found.items() if value is not LEFT_OUT and key != "architectures"}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def made(name: str) -> Any:
    config = settings(name)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[config.pop("model_type")](**config)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1 if parameter.ndim == 1 else 0, std=0.15)
    return model


def test_llama_cpp_and_what_is_read_back_compute_what_transformers_computes(family: str, tmp_path: Path) -> None:
    config, model = settings(family), made(family)
    path = write_llama(tmp_path / "model.gguf", StoredTypes("f32"), config, model.state_dict())
    ids = torch.randint(0, 256, (TOKENS,), generator=torch.Generator().manual_seed(1)).tolist()
    positions = [0, 10, WINDOW + 3, 40, TOKENS - 1]
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0]
    expected = logits.log_softmax(-1)
    files = GgufSource().open(str(path))
    again = AutoModelForCausalLM.from_config(
        CONFIG_MAPPING[files.config["model_type"]](**{k: v for k, v in files.config.items() if k != "model_type"})
    ).eval()
    state = dict(files.read())
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        name: info.shape for name, info in files.tensors.items()
    }
    missing, left_over = again.load_state_dict(state, strict=False)
    assert left_over == [] and missing == (["lm_head.weight"] if again.config.tie_word_embeddings else [])
    again.tie_weights()
    with torch.no_grad():
        torch.testing.assert_close(again(input_ids=torch.tensor([ids])).logits[0], logits, rtol=1e-5, atol=1e-5)
    with LlamaCpp(path, TOKENS + 8) as program:
        found = program.log_probabilities(ids, positions, config["vocab_size"])
    known = ~found.isnan()
    off = (found - expected[positions])[known].abs().max().item()
    # llama.cpp looks GELU up in a table of half precision
    rounded = 1e-3 if family.startswith(("gemma", "starcoder")) else 1e-5
    assert off < rounded * logits.abs().max().item()


@pytest.mark.parametrize("keys", [1, 2])
def test_one_tensor_of_more_queries_than_keys_is_read_as_llama_cpp_does(keys: int, tmp_path: Path) -> None:
    config = {**settings("olmo2"), "num_key_value_heads": keys}
    torch.manual_seed(0)
    built = {key: value for key, value in config.items() if key != "model_type"}
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["olmo2"](**built)).eval()
    path = write_llama(tmp_path / "model.gguf", StoredTypes("f32"), config, model.state_dict())
    tensors = stored_tensors(config, model.state_dict().items(), StoredTypes("f32"))
    write_gguf(path, read_header(path).metadata, fused(tensors))
    state, own = dict(GgufSource().open(str(path)).read()), model.state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in state.items())
    ids = torch.randint(0, 256, (40,), generator=torch.Generator().manual_seed(1)).tolist()
    with LlamaCpp(path, 64) as program, torch.no_grad():
        found = program.log_probabilities(ids, [39], config["vocab_size"])
        expected = model(input_ids=torch.tensor([ids])).logits[0, 39:].log_softmax(-1)
    known = ~found.isnan()
    torch.testing.assert_close(found[known], expected[known], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("labels", [2, 70])
def test_llama_cpp_scores_sequences_as_transformers_does(labels: int, tmp_path: Path) -> None:
    """More labels than the model is wide, too; and longer sequences than llama.cpp cuts unless told otherwise."""
    long = {**settings("qwen3"), "max_position_embeddings": 1024}
    config = with_head(long, "sequence", [f"label {n}" for n in range(labels)], pad=0)
    kind, built = "qwen3", {key: value for key, value in config.items() if key not in ("model_type", "architectures")}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(CONFIG_MAPPING[kind](**built)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=0.1 if parameter.ndim == 1 else 0, std=0.3)
    path = write_llama(tmp_path / "model.gguf", StoredTypes("f32"), config, model.state_dict())
    files = GgufSource().open(str(path))
    assert head_of(files.config) == "sequence" and labels_of(files.config) == labels_of(config)
    state, own = dict(files.read()), model.state_dict()
    assert state.keys() == own.keys() and all(torch.equal(state[name], own[name]) for name in own)
    assert check_exported(read_header(path)) == config["vocab_size"]
    generator = torch.Generator().manual_seed(1)
    with LlamaCpp(path, 700, wholes=True) as program, torch.no_grad():
        for length in (1, 40, 600):
            ids = torch.randint(1, 256, (length,), generator=generator).tolist()
            scores = model(input_ids=torch.tensor([ids])).logits
            torch.testing.assert_close(program.log_shares(ids), scores.log_softmax(-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "by"), [("llama", "mean"), ("qwen3", "lasttoken"), ("gemma2", "mean"), ("olmo2", "cls")]
)
def test_llama_cpp_makes_vectors_as_transformers_does(family: str, by: PooledBy, tmp_path: Path) -> None:
    """Of a body alone; where llama.cpp asks for an output layer, too, whose place the embedding takes."""
    long = {**settings(family), "max_position_embeddings": 1024, "tie_word_embeddings": False}
    config = with_head(long, "embedding", pooled_by=by)
    model = made(family).base_model
    path = write_llama(tmp_path / "model.gguf", StoredTypes("f32"), config, model.state_dict())
    files = GgufSource().open(str(path))
    assert head_of(files.config) == "embedding" and files.config[EMBEDDING_POOLING] == by
    state, own = dict(files.read()), model.state_dict()
    assert state.keys() == own.keys() and all(torch.allclose(state[name], own[name], atol=1e-6) for name in own)
    assert check_exported(read_header(path)) == config["vocab_size"]
    generator = torch.Generator().manual_seed(1)
    with LlamaCpp(path, 700, wholes=True) as program, torch.no_grad():
        for length in (1, 40, 600):
            ids = torch.randint(1, 256, (length,), generator=generator).tolist()
            vector = pooled(model(input_ids=torch.tensor([ids])).last_hidden_state[0], by)
            off = (program.vector(ids)[0] - vector).abs().max() / vector.abs().max()
            assert off < (1e-3 if family == "gemma2" else 1e-5)  # whose GELU llama.cpp looks up in a table


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_experts_are_kept_in_their_own_blocks(family: str, tmp_path: Path) -> None:
    """One by one, those of gate and up, which are two tensors of the file, row after row; bytes are foretold."""
    path = write_llama(tmp_path / "model.gguf", StoredTypes("q8_0"), settings(family), made(family).state_dict())
    files = GgufSource().open(str(path))
    reference = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    model = load_base_model(files, Stored(), device=torch.device("cpu"))
    layers = {name: m.frozen for name, m in model.named_modules() if isinstance(m, FrozenLinear)}
    experts = {name: frozen for name, frozen in layers.items() if ".experts." in name}
    assert len(experts) == 2 * 2 * 4 and {type(frozen) for frozen in experts.values()} == {BlockWeight}
    for name, frozen in experts.items():
        _, _, layer, *_, which, number = name.split(".")
        stored = ("ffn_gate_exps", "ffn_up_exps") if which == "gate_up_proj" else ("ffn_down_exps",)
        found = [reference[f"blk.{layer}.{tensor}.weight"] for tensor in stored]
        rows = np.concatenate([dequantize(tensor.data, tensor.tensor_type)[int(number)] for tensor in found])
        np.testing.assert_array_equal(frozen.dequantize().numpy(), rows)
    planned = plan_base_model(files)
    told = {layer.path: layer.file_bytes for stack in planned.stacks for layer in stack.layers()}
    assert told == {name: frozen.nbytes for name, frozen in experts.items()}
    [use] = check_stored_weights(files, Stored())
    assert (use.kind, use.kept, use.anew) == ("Q8_0", len(layers), ())
    [use] = check_stored_weights(files, Dense())
    assert (use.kept, len(use.anew), use.can_be_kept) == (0, len(layers), True)
    ModelSourceContract().test_a_weight_that_is_kept_as_it_lies_computes_what_its_source_dequantizes(files)
    ids = torch.tensor([[5, 9, 7, 7, 3]])
    with torch.no_grad():
        dense = load_base_model(files, Dense(), device=torch.device("cpu"))(input_ids=ids).logits
        torch.testing.assert_close(model(input_ids=ids).logits, dense, rtol=1e-5, atol=1e-5)


def test_the_types_that_are_kept_are_those_that_are_dequantized_here() -> None:
    assert BLOCKS.keys() == KEPT_TYPES


REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "a sliding window of 16 tokens": ("mistral", {"sliding_window": 16}),
    "rope of the type 'dynamic'": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ),
    "'yarn' with beta_fast = 16": ("llama", {"rope_parameters": {**_YARN, "beta_fast": 16}}),
    "'yarn' with truncate = False": ("llama", {"rope_parameters": {**_YARN, "truncate": False}}),
    "rope of the type 'llama3'": (
        "qwen3",
        {"rope_parameters": {**_LLAMA3, "original_max_position_embeddings": 64}},
    ),
    "hidden_act = gelu": ("llama", {"hidden_act": "gelu"}),
    "query_pre_attn_scalar = 256 rather than 32": ("gemma2", {"query_pre_attn_scalar": 256}),
    "without attn_logit_softcapping": ("gemma2", {"attn_logit_softcapping": None}),
    "soft caps of logits": ("gemma3", {"final_logit_softcapping": 30.0}),
    "another order of layers with a window": ("gemma3", {"layer_types": ["full_attention"] * 7}),
    "another rotary embedding than 10,000": (
        "gemma3",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 5e4},
            }
        },
    ),
    "norm_topk_prob = False": ("qwen3_moe", {"norm_topk_prob": False}),
    "norm_topk_prob = True": ("qwen2_moe", {"norm_topk_prob": True}),
    "layers without experts": ("qwen3_moe", {"mlp_only_layers": [0]}),
    "another order of layers without rotary": ("smollm3", {"no_rope_layers": [1, 1, 1, 1, 1]}),
    "4 heads of 32 in a width of 96": ("qwen2", {"hidden_size": 96}),
    "a sliding window of 32 tokens": ("starcoder2", {"sliding_window": 32}),
}


SCORES_REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "'llama' can't be written as GGUF: of qwen3, bert alone": ({"model_type": "llama"}, {}),
    "'distilbert' can't be written as GGUF: of qwen3, bert alone": ({"model_type": "distilbert"}, {}),
    "leaves nothing of a single score": (
        settings("qwen3"),
        {"id2label": {"0": "LABEL_0"}, "problem_type": "regression"},
    ),
    "nothing of scores of the problem type multi_label": (
        settings("qwen3"),
        {"problem_type": "multi_label_classification"},
    ),
}


@pytest.mark.parametrize("message", SCORES_REFUSED)
def test_scores_that_llama_cpp_does_not_give_are_refused(message: str) -> None:
    base, changes = SCORES_REFUSED[message]
    config = with_head(base, "sequence", ["bad", "good"]) | changes
    with pytest.raises(ModelError, match=message):
        architecture_of(config).metadata(complete_config(config))


@pytest.mark.parametrize("message", REFUSED)
def test_what_llama_cpp_computes_otherwise_is_refused_by_name(message: str) -> None:
    name, changes = REFUSED[message]
    config = settings(name) | changes
    with pytest.raises(ModelError, match=message):
        architecture_of(config).metadata(complete_config(config))


def test_a_weight_without_a_place_is_refused_by_name() -> None:
    config = settings("qwen3")
    with pytest.raises(ModelError, match=r"'model\.layers\.0\.self_attn\.o_proj\.bias' has no name"):
        architecture_of(config).tensor("model.layers.0.self_attn.o_proj.bias", torch.zeros(4), config)


def test_an_older_configuration_says_the_same() -> None:
    config = {**settings("llama"), "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    found = architecture_of(config).metadata(complete_config(config))
    assert found["llama.rope.freq_base"] == 5e5
    assert (found["llama.rope.scaling.type"], found["llama.rope.scaling.factor"]) == ("linear", 2.0)


def test_the_table_in_the_documentation_is_this_one() -> None:
    text = (Path(__file__).parents[3] / "docs" / "gguf.md").read_text()
    rows = [f"| `{one.model[0]}` | `{one.name}` | {', '.join(one.ropes) or 'none'} |" for one in ARCHITECTURES_OF_GGUF]
    table = text.partition("\n| transformers | llama.cpp |")[2].partition("\n\n")[0]
    assert [line for line in table.splitlines() if line.startswith("| `")] == rows
