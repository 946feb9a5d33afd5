"""Adapters that hold whole modules (PEFT's `modules_to_save`) are trained further, as peft computes them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from adapted_models import adapter_of_peft
from click.testing import CliRunner
from continued_adapters import computed_at_start, computed_by, computed_by_peft
from graftkit.cli import export
from graftkit.errors import Cancelled, ModelError, RecipeError
from graftkit.flow.answering.reload import reload
from graftkit.flow.answering.reload_base import reload_base
from graftkit.flow.events import Event, StepFinished
from graftkit.flow.state.cancel import CancelToken
from graftkit.host.host import PluginHost
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from graftkit.training.dry_run import dry_run
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

RecipeMaker = Callable[..., dict[str, Any]]

IDS = torch.tensor([[257, 40, 41, 42, 99, 7, 7, 255, 12, 60, 61]])

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_tying", "ignore:.*tie_word_embeddings")


def base_of(folder: Path, shape: str = "llama", **settings: Any) -> Path:
    return tiny_model_folder(folder, **{**TINY_SHAPES[shape], **settings})


of_peft = partial(adapter_of_peft, moved=0.1, target_modules=["q_proj"])


logits_of_peft, logits_of = partial(computed_by_peft, ids=IDS), partial(computed_by, ids=IDS)


def trained(make_recipe: RecipeMaker, base: Path, adapter: Path, out: Path, **sections: Any) -> graftkit.RunResult:
    recipe = make_recipe(model=str(base), adapter={"from": str(adapter)}, **{"export": [], **sections})
    return graftkit.run(recipe, out=out)


@pytest.fixture
def at_start(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Gets the logits that a run's model gives before its first step."""
    return computed_at_start(monkeypatch, IDS)


KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "a tied model's output layer": ("llama", {"modules_to_save": ["lm_head", "norm"]}),
    "a tied model's both matrices": ("llama", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "a tied model's one matrix": ("llama", {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}),
    "an untied model's embedding": ("llama-untied", {"modules_to_save": ["embed_tokens", "model.norm"]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_whole_modules_are_trained_further_as_peft_computes_them(
    kind: str, at_start: list[torch.Tensor], make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    shape, fields = KINDS[kind]
    base = base_of(tmp_path / "base", shape)
    adapter = of_peft(base, tmp_path / "adapter", **fields)
    names = [name for name in tensors_of(adapter) if "lora_" not in name]
    done = trained(make_recipe, base, adapter, tmp_path / "run", export=["peft", "merged"])
    torch.testing.assert_close(at_start[0], logits_of_peft(base, adapter), rtol=0, atol=2e-5)
    assert done.manifest["parameters"]["trainable"] == done.manifest["forecast"]["adapter_parameters"]
    before, after = tensors_of(adapter), tensors_of(done.exports["peft"])
    assert set(names) == {name for name in after if "lora_" not in name}
    assert all((before[name] - after[name]).abs().max() > 1e-3 for name in names)
    ours = logits_of(tmp_path / "run")
    torch.testing.assert_close(logits_of_peft(base, done.exports["peft"]), ours, rtol=0, atol=2e-5)
    torch.testing.assert_close(logits_of(done.exports["peft"]), ours, rtol=0, atol=2e-5)
    merged = AutoModelForCausalLM.from_pretrained(done.exports["merged"], dtype=torch.float32)
    torch.testing.assert_close(merged(input_ids=IDS).logits, ours, rtol=0, atol=2e-5)
    assert merged.config.tie_word_embeddings is ("ensure_weight_tying" in fields)


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return found


def test_a_run_goes_on_and_is_exported_without_the_folder_that_it_began_with(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    base = base_of(tmp_path / "base")
    adapter = of_peft(base, tmp_path / "adapter", modules_to_save=["lm_head", "norm"])
    for name in ("whole", "stopped"):
        cancel = CancelToken()

        def stop(event: Event, cancel: CancelToken = cancel) -> None:
            if isinstance(event, StepFinished) and event.step.step == 3:
                cancel.cancel()

        recipe = make_recipe(model=str(base), adapter={"from": str(adapter)}, export=[])
        on_event = stop if name == "stopped" else None
        with pytest.raises(Cancelled) if on_event else nullcontext():
            graftkit.run(recipe, out=tmp_path / name, on_event=on_event, cancel=cancel)
    shutil.move(adapter, tmp_path / "elsewhere")
    done = graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    assert done.manifest["adapter_from"]["path"] == str(adapter)
    whole, resumed = (load_file(tmp_path / name / "adapter" / "adapter.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    exported = CliRunner().invoke(export.command, [str(tmp_path / "stopped"), "--to", "gguf", "--set", "type=f32"])
    assert exported.exit_code == 0, exported.output
    torch.testing.assert_close(
        logits_of(tmp_path / "stopped" / "exports" / "gguf"), logits_of(tmp_path / "stopped"), rtol=0, atol=2e-5
    )
    tuned = reload(str(tmp_path / "stopped"), PluginHost())
    without = reload_base(str(tmp_path / "stopped"), tuned, PluginHost())
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)(input_ids=IDS).logits
    torch.testing.assert_close(without.network(input_ids=IDS).logits, plain, rtol=0, atol=2e-5)
    changed = tmp_path / "stopped" / "adapter-from" / "adapter_model.safetensors"
    save_file({name: 2 * tensor for name, tensor in load_file(changed).items()}, changed)
    with pytest.raises(ModelError, match="the adapter that the run began with has changed"):
        graftkit.run(recipe | {"export": ["peft"]}, out=tmp_path / "stopped", resume=True)


def test_whole_modules_are_float32_beside_a_model_of_16_bits(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """A step of 1e-4 changes no bfloat16 number near 1: what is trained adds such steps up."""
    base = base_of(tmp_path / "base", "llama-untied")
    adapter = of_peft(base, tmp_path / "adapter", modules_to_save=["embed_tokens", "lm_head", "norm"])
    training = {**make_recipe()["training"], "dtype": "bfloat16", "learning_rate": 1e-4}
    done = trained(make_recipe, base, adapter, tmp_path / "run", training=training, export=["peft"])
    before, after = tensors_of(adapter), tensors_of(done.exports["peft"])
    for name in [name for name in before if "lora_" not in name]:
        assert 0 < (before[name] - after[name]).abs().max() < 1e-3 and after[name].dtype == torch.float32
    network = reload(str(tmp_path / "run"), PluginHost()).network
    found = network(input_ids=IDS).logits
    assert found.dtype == torch.bfloat16
    expected = logits_of_peft(base, done.exports["peft"])
    assert (found.float() - expected).abs().max() < 0.02 * expected.abs().max()


def test_a_base_with_more_tokens_is_trained_further_with_its_own_matrices(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    """As peft's users add tokens: they enlarge the base, and train its matrices as a whole."""
    small, base = base_of(tmp_path / "small"), tmp_path / "base"
    network, tokenizer = AutoModelForCausalLM.from_pretrained(small), AutoTokenizer.from_pretrained(small)
    tokenizer.add_tokens(["<call>", "</call>"])
    network.resize_token_embeddings(network.config.vocab_size + 6, mean_resizing=False)
    network.save_pretrained(base)
    tokenizer.save_pretrained(base)
    adapter = of_peft(base, tmp_path / "adapter", modules_to_save=["embed_tokens", "lm_head"])
    done = trained(make_recipe, base, adapter, tmp_path / "run", export=["peft"])
    expected = logits_of_peft(base, done.exports["peft"])
    torch.testing.assert_close(logits_of(tmp_path / "run"), expected, rtol=0, atol=2e-5)
    with pytest.raises(ModelError, match=r"holds 'lm_head.weight' as \[326, .*the base model has \[320"):
        trained(make_recipe, small, adapter, tmp_path / "other")
    assert not (tmp_path / "other").exists()


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], type[Exception], str]] = {
    "a new vocabulary": (
        {"modules_to_save": ["lm_head"]},
        {"tokenizer": {"extend": {"tokens": 4}}},
        RecipeError,
        "the vocabulary changes, and with it the rows of 'lm_head.weight', which is trained as a whole",
    ),
    "a layer inside the blocks": (
        {"modules_to_save": ["layers.1.mlp"]},
        {},
        ModelError,
        "holds 'model.layers.1.mlp.down_proj.weight', a linear layer inside the blocks, which graftkit keeps frozen",
    ),
    "an adapter's file": (
        {"modules_to_save": ["norm"]},
        {"export": ["gguf-lora"]},
        RecipeError,
        "which is whole beside the adapter, has no form in a GGUF adapter",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_place_for_whole_modules_is_refused_first(
    kind: str, tiny_model: Path, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    fields, sections, error, message = REFUSED[kind]
    adapter = of_peft(tiny_model, tmp_path / "adapter", **fields)
    with pytest.raises(error, match=message):
        trained(make_recipe, tiny_model, adapter, tmp_path / "run", **sections)
    assert not (tmp_path / "run").exists()


def test_a_forecast_counts_whole_modules(tiny_model: Path, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Each is float32, and has a gradient and two moments of its size: 16 bytes a number."""
    found = {}
    for kind, fields in {"none": {}, "one": {"modules_to_save": ["lm_head"]}}.items():
        adapter = of_peft(tiny_model, tmp_path / kind, **fields)
        recipe = make_recipe(model=str(tiny_model), adapter={"from": str(adapter)}, export=[])
        planned = graftkit.plan(recipe, as_run=True)
        asked = planned.ask_memory(planned.bound)
        peak = next(peak for peak in dry_run(asked.dry).peaks if peak.stage == "training")
        found[kind] = {key: peak.parts.get(key, 0) for key in ("adapter", "gradients", "optimizer")}
    numbers = 320 * json.loads((tiny_model / "config.json").read_bytes())["hidden_size"]
    more = {key: found["one"][key] - found["none"][key] for key in found["one"]}
    assert more == {"adapter": 4 * numbers, "gradients": 4 * numbers, "optimizer": 8 * numbers}
