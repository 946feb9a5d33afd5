"""`adapter.modules_to_save`: modules that a new adapter trains as wholes beside it, as PEFT does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from continued_adapters import computed_by, computed_by_peft
from graftkit.errors import GraftkitError, RecipeError, TargetError
from graftkit.store.token_store import TokenStore
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from reference import mean_loss
from safetensors.torch import load_file
from stopped_runs import run_until
from transformers import AutoModelForCausalLM

RecipeMaker = Callable[..., dict[str, Any]]

IDS = torch.tensor([[257, 40, 41, 42, 99, 7, 7, 255, 12, 60, 61]])
logits_of_peft, logits_of = partial(computed_by_peft, ids=IDS), partial(computed_by, ids=IDS)

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_tying", "ignore:.*tie_word_embeddings")

KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "a tied model's output layer": ("llama", {"modules_to_save": ["lm_head", "norm"]}),
    "a tied model's one matrix": ("llama", {"modules_to_save": "embed_tokens", "ensure_weight_tying": True}),
    "an untied model's matrices": ("llama-untied", {"modules_to_save": ["embed_tokens", "lm_head", "model.norm"]}),
}


def wholes(folder: Path) -> dict[str, torch.Tensor]:
    """Returns the whole parameters of a `peft` export, by the base model's names."""
    found = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix("base_model.model."): tensor for name, tensor in found.items() if "lora_" not in name}


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_is_transformers_and_every_export_computes_it(
    kind: str, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """An adapter changes nothing at first: a whole module's gradient is then that of the model alone."""
    shape, fields = KINDS[kind]
    base, rate = tiny_model_folder(tmp_path / "base", **TINY_SHAPES[shape]), 0.5
    training = {"steps": 1, "tokens_per_step": 100_000, "learning_rate": rate, "device": "cpu", "optimizer": "sgd"}
    training |= {"schedule": "constant", "warmup": 0.0, "max_grad_norm": 1e9, "weight_decay": 0.0, "dtype": "float32"}
    recipe = make_recipe(
        model=str(base),
        adapter={"use": "lora", "rank": 4, "targets": ["q_proj"], **fields},
        training=training,
        export=["peft", "merged", {"use": "gguf", "type": "f32"}],
        proof="later",
    )
    done = graftkit.run(recipe, out=tmp_path / "run")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if model.config.tie_word_embeddings and "ensure_weight_tying" not in fields:
        model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    mean_loss(model, TokenStore.load(done.folder / "tokens" / "train.safetensors")).backward()
    after, parameters = wholes(done.exports["peft"]), dict(model.named_parameters(remove_duplicate=False))
    assert after
    for name, tensor in after.items():
        before, gradient = parameters[name].detach(), parameters[name].grad
        assert gradient is not None and gradient.abs().max() * rate > 1e-4
        torch.testing.assert_close(tensor, before - rate * gradient, rtol=1e-5, atol=1e-6)
    config = json.loads((done.exports["peft"] / "adapter_config.json").read_text())
    named = fields["modules_to_save"] if isinstance(fields["modules_to_save"], list) else [fields["modules_to_save"]]
    assert {path.rpartition(".")[2] for path in config["modules_to_save"]} >= {n.rpartition(".")[2] for n in named}
    assert done.manifest["parameters"]["trainable"] == done.manifest["forecast"]["adapter_parameters"]
    assert any("are trained beside the adapter" in notice for notice in done.manifest["notices"])
    ours = logits_of(done.folder)
    torch.testing.assert_close(logits_of_peft(base, done.exports["peft"]), ours, rtol=0, atol=2e-5)
    for name in ("peft", "gguf"):
        torch.testing.assert_close(logits_of(done.exports[name]), ours, rtol=0, atol=2e-5)
    merged = AutoModelForCausalLM.from_pretrained(done.exports["merged"], dtype=torch.float32)
    torch.testing.assert_close(merged(input_ids=IDS).logits, ours, rtol=0, atol=2e-5)
    assert merged.config.tie_word_embeddings is ("ensure_weight_tying" in fields)


def test_a_run_that_was_stopped_goes_on_with_them(tiny_model: Path, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    whole_ones = {"modules_to_save": ["lm_head", "norm"], "ensure_weight_tying": True}
    training = make_recipe()["training"] | {"dtype": "bfloat16"}
    recipe = make_recipe(
        model=str(tiny_model), quantizer="nf4", training=training, adapter={"use": "lora", **whole_ones}
    )
    for as_run, told in ((False, "and lm_head, norm as wholes$"), (True, r"as wholes, about [\d,]+ trainable")):
        assert re.search(told, graftkit.plan(recipe, as_run=as_run).to_json()["adapter"]["text"])
    graftkit.run(recipe, out=tmp_path / "whole")
    run_until(3, recipe, tmp_path / "stopped")
    graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    whole, resumed = (load_file(tmp_path / name / "adapter" / "adapter.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[GraftkitError], str]] = {
    "no module": ({"modules_to_save": ["lm_haed"]}, {}, TargetError, "is called 'lm_haed'.*Did you mean 'lm_head'"),
    "a layer inside the blocks": ({"modules_to_save": ["q_proj"]}, {}, TargetError, "a linear layer inside the blocks"),
    "an adapted layer": (
        {"modules_to_save": ["lm_head"], "targets": ["q_proj", "lm_head"]},
        {},
        TargetError,
        "'lm_head.weight', which the adapter adapts as well",
    ),
    "a new vocabulary": (
        {"modules_to_save": ["lm_head"]},
        {"tokenizer": {"extend": {"tokens": 4}}},
        RecipeError,
        "the vocabulary changes, and with it the rows of 'lm_head.weight'",
    ),
    "nothing that is tied": (
        {"modules_to_save": ["norm"], "ensure_weight_tying": True},
        {},
        TargetError,
        "adapter.ensure_weight_tying changes nothing",
    ),
    "tying alone": ({"ensure_weight_tying": True}, {}, RecipeError, "is of adapter.modules_to_save"),
    "an adapter from elsewhere": (
        {"from": "somewhere", "modules_to_save": ["norm"]},
        {},
        RecipeError,
        "an adapter that is trained on keeps its whole modules",
    ),
    "no form in the file": (
        {"modules_to_save": ["norm"]},
        {"export": ["gguf-lora"]},
        RecipeError,
        "has no form in a GGUF adapter",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_can_t_be_trained_as_a_whole_is_refused_first(kind: str, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    fields, sections, error, message = REFUSED[kind]
    recipe = make_recipe(adapter={"use": "lora", **fields}, **sections)
    if "from" in fields:
        del recipe["adapter"]["use"]
    with pytest.raises(error, match=f"(?s){message}"):
        graftkit.run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
