"""Every kind of built-in adapter through whole runs: trained, exported, proved by peft, and loaded again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit.errors import ModelError, RecipeError, RequestError
from graftkit.flow.answering.reload import reload
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

RecipeMaker = Callable[..., dict[str, Any]]

IDS = torch.tensor([[257, 40, 41, 42, 43, 99, 101, 7, 7, 7, 255, 12]])

GGUF = {"use": "gguf", "type": "f32"}

PROVED: dict[str, tuple[dict[str, Any], Any]] = {
    "DoRA": ({"use": "lora", "rank": 4, "dora": True}, "none"),
    "DoRA on NF4": ({"use": "qlora", "rank": 4, "dora": True, "dropout": 0.1, "rslora": True}, "nf4"),
    "PiSSA": ({"use": "lora", "rank": 4, "init": "pissa", "rank_pattern": {"q_proj": 3}}, "none"),
    "PiSSA on NF4": ({"use": "qlora", "rank": 4, "init": "pissa", "rslora": True, "dropout": 0.1}, "nf4"),
    "OLoRA": ({"use": "lora", "rank": 4, "init": "olora", "alpha": 4.0, "alpha_pattern": {"up_proj": 2.0}}, "none"),
    "DoRA on int8 with products in int8": (
        {"use": "lora", "rank": 4, "dora": True, "targets": ["q_proj", "down_proj"]},
        {"use": "int8", "products": "int8"},
    ),
}


@torch.no_grad()
def answer(folder: Path) -> torch.Tensor:
    logits: torch.Tensor = reload(str(folder)).network(input_ids=IDS).logits
    return logits


def assert_computes(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compares logits up to float32's rounding, which is another one on each kind of processor."""
    torch.testing.assert_close(found, expected, rtol=0, atol=5e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("kind", PROVED)
def test_its_exports_are_proved_and_compute_what_was_trained(
    kind: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """On a model with biases; peft itself proves what it loads."""
    adapter, quantizer = PROVED[kind]
    model = tiny_model_folder(tmp_path / "model", **TINY_SHAPES["llama-biased"])
    recipe = make_recipe(model=str(model), adapter=adapter, quantizer=quantizer, export=["peft", "merged"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert {name: facts["proof"]["status"] for name, facts in result.manifest["exports"].items()} == {
        "peft": "proved",
        "merged": "proved",
    }
    expected = answer(result.folder)
    for folder in result.exports.values():
        assert_computes(answer(folder), expected)


@pytest.mark.parametrize(("export", "form"), [("gguf-lora", "a GGUF adapter"), ("mlx-lora", "an adapter of mlx-lm")])
def test_formats_of_loras_matrices_alone_have_no_form_of_magnitudes(
    export: str, form: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    recipe = make_recipe(adapter={"use": "lora", "dora": True}, export=[export])
    with pytest.raises(RecipeError, match=f"DoRA's magnitudes have no form in {form}") as caught:
        graftkit.run(recipe, out=tmp_path / "run")
    assert "the whole model with the adapter merged in" in str(caught.value)


@pytest.mark.parametrize("adapter", [{"use": "full"}, {"use": "lora", "rank": 4, "init": "qpissa"}])
@pytest.mark.parametrize("quantizer", ["none", "nf4"])
def test_what_is_no_base_with_an_adapter_is_merged(
    adapter: dict[str, Any], quantizer: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    training = {"steps": 4, "tokens_per_step": 256, "learning_rate": 1e-3, "device": "cpu", "optimizer": "adamw-8bit"}
    recipe = make_recipe(adapter=adapter, quantizer=quantizer, training=training, export=["merged", GGUF])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert [facts["proof"]["status"] for facts in result.manifest["exports"].values()] == ["proved", "proved"]
    assert_computes(answer(result.exports["merged"]), answer(result.folder))


@pytest.mark.parametrize(
    ("shape", "outer", "quantizer", "exports"),
    [
        ("llama", ["lm_head"], "nf4", ["peft", "merged", GGUF, {"use": "mlx", "bits": None}]),
        ("llama-untied", ["lm_head"], "none", ["gguf-lora", "peft"]),
        ("llama", ["embed_tokens"], "nf4", ["peft", "merged", GGUF]),
        ("llama-untied", ["embed_tokens", "lm_head"], "none", ["gguf-lora", "mlx-lora", "peft", "merged"]),
    ],
    ids=["output, tied", "output, untied", "embedding, tied", "both, untied"],
)
def test_an_adapted_layer_outside_the_blocks_is_exported(
    shape: str, outer: list[str], quantizer: str, exports: list[Any], make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """Of a model that ties the two, each has a matrix of its own then; peft and llama.cpp prove it."""
    model = tiny_model_folder(tmp_path / "model", **TINY_SHAPES[shape])
    adapter = {"use": "lora", "rank": 4, "dropout": 0.1, "rslora": True, "targets": ["all-linear", *outer]}
    recipe = make_recipe(model=str(model), adapter=adapter, quantizer=quantizer, export=exports)
    result = graftkit.run(recipe, out=tmp_path / "run")
    manifest = result.manifest
    assert {facts["proof"]["status"] for facts in manifest["exports"].values()} == {"proved"}
    assert manifest["forecast"]["adapter_parameters"] == manifest["parameters"]["trainable"]
    expected = answer(result.folder)
    for name in {"peft", "merged"} & result.exports.keys():
        assert_computes(answer(result.exports[name]), expected)
    told = [notice for notice in manifest["notices"] if "merge_and_unload would change both" in notice]
    assert bool(told) == (shape == "llama")
    if shape == "llama":
        config = json.loads((result.exports["merged"] / "config.json").read_bytes())
        assert config["tie_word_embeddings"] is False


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"export": ["gguf-lora"]}, "'lm_head' is tied to the embedding, and no matrix of its own"),
        (
            {"tokenizer": {"extend": {"words": ["<call>"]}}},
            "the vocabulary changes, and with it the rows of 'lm_head', which can't be adapted then",
        ),
        (
            {"tokenizer": {"extend": {"words": ["<call>"]}}, "adapter": {"targets": ["embed_tokens"]}},
            "the vocabulary changes, and with it the rows of 'model.embed_tokens', which can't be adapted then",
        ),
        ({"export": ["gguf-lora"], "adapter": {"targets": ["embed_tokens"]}}, "embed_tokens' is tied to the output"),
        ({"export": ["mlx-lora"], "adapter": {"targets": ["embed_tokens"]}}, "one matrix, of which one is adapted"),
        ({"adapter": {"targets": ["embed_tokens"], "dora": True}}, "it is an embedding, on which there is no DoRA"),
        ({"adapter": {"targets": ["embed_tokens"], "init": "pissa"}}, "an embedding, which has no start of pissa"),
        ({"adapter": {"use": "full", "targets": ["embed_tokens"]}}, "an embedding, on which this adapter does not go"),
        ({"adapter": {"use": "bitfit", "targets": ["embed_tokens"]}}, "'bitfit' can go on no layer .* an embedding"),
    ],
    ids=[
        "gguf-lora",
        "rows",
        "rows of embedding",
        "gguf's embedding",
        "mlx's embedding",
        "DoRA",
        "PiSSA",
        "full",
        "bitfit",
    ],
)
def test_a_layer_outside_the_blocks_that_can_not_be_adapted_so_is_refused(
    recipe: dict[str, Any], reason: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    adapter = {"use": "lora", "targets": ["q_proj", "lm_head"], **recipe.get("adapter", {})}
    with pytest.raises(RequestError, match=reason):
        graftkit.run(make_recipe(**{**recipe, "adapter": adapter}), out=tmp_path / "run")


@pytest.mark.filterwarnings("ignore:.*weight_tying")
@pytest.mark.parametrize("layer", ["lm_head", "embed_tokens"])
def test_training_goes_on_with_a_layer_outside_the_blocks_that_peft_adapted(
    layer: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """A step of no size leaves what peft computes; a copy of another base's matrix is refused."""
    folder = tiny_model_folder(tmp_path / "model")
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    made = get_peft_model(base, LoraConfig(target_modules=["q_proj", layer], init_lora_weights=False)).eval()
    made.save_pretrained(tmp_path / "adapter", save_embedding_layers=True)
    training = {"steps": 1, "tokens_per_step": 256, "learning_rate": 1e-12, "device": "cpu"}
    recipe = {"model": str(folder), "adapter": {"from": str(tmp_path / "adapter")}, "export": [], "training": training}
    result = graftkit.run(make_recipe(**recipe), out=tmp_path / "run")
    with torch.no_grad():
        torch.testing.assert_close(answer(result.folder), made(input_ids=IDS).logits, rtol=0, atol=1e-5)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    [copied] = [name for name in tensors if name.endswith(f"{layer}.base_layer.weight")]
    save_file({**tensors, copied: tensors[copied] + 0.1}, path)
    with pytest.raises(ModelError, match="which is not what the base model has"):
        graftkit.run(make_recipe(**recipe), out=tmp_path / "other")


def test_biases_are_merged(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Into the layers that have one; llama.cpp loads them, too."""
    model = tiny_model_folder(tmp_path / "model", **TINY_SHAPES["qwen2"])
    training = {"steps": 4, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"}
    recipe = make_recipe(model=str(model), adapter="bitfit", training=training, export=["merged", GGUF])
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert [facts["proof"]["status"] for facts in result.manifest["exports"].values()] == ["proved", "proved"]
    assert result.manifest["metrics"]["after"]["holdout_loss"] < result.manifest["metrics"]["before"]["holdout_loss"]
    assert_computes(answer(result.exports["merged"]), answer(result.folder))


@pytest.mark.parametrize("adapter", [{"use": "full"}, {"use": "lora", "init": "qpissa"}, {"use": "bitfit"}])
@pytest.mark.parametrize(
    ("export", "reason"),
    [
        ("peft", "PEFT has no form of this adapter: export merged"),
        ("gguf-lora", "this adapter has no form in a GGUF adapter, which is LoRA"),
    ],
)
def test_it_is_refused_beside_a_base(
    adapter: dict[str, Any], export: str, reason: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    model = str(tiny_model_folder(tmp_path / "model", **TINY_SHAPES["qwen2"]))
    with pytest.raises(RecipeError, match=reason):
        graftkit.run(make_recipe(model=model, adapter=adapter, export=[export]), out=tmp_path / "run")
