"""Training goes on with adapters that bring a head: graftkit's own, and peft's."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from encoder_models import encoder_folder
from graftkit.errors import FolderError, ModelError, RecipeError
from graftkit.flow.reload import reload_any
from graftkit.flow.reloaded_head import HeadModel
from safetensors.torch import load_file

WORDS = {"good": ("lovely", "great"), "bad": ("awful", "poor")}
TEXTS = [
    {"text": f"the film {n} was {WORDS[label][n % 2]} and long", "label": label}
    for n, label in enumerate(["good", "bad", "bad", "good"] * 15)
]
STILL = {"steps": 2, "learning_rate": 1e-12}
"""A training that moves no number by more than 2e-12."""


@pytest.fixture
def recipe_for(make_recipe: Any, tmp_path: Path) -> Any:
    def make(objective: Any = "classification", labels: Mapping[str, str] | None = None, **sections: Any) -> Any:
        rows = [{**row, "label": (labels or {}).get(row["label"], row["label"])} for row in TEXTS]
        path = tmp_path / f"records-{len(list(tmp_path.glob('records-*')))}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        training = {"steps": 8, "tokens_per_step": 512, "learning_rate": 1e-2, "device": "cpu"}
        training |= sections.pop("training", {})
        data = {"train": str(path), "holdout": 0.2, "max_length": 64}
        return make_recipe(data=data, objective=objective, training=training, export=["peft"], **sections)

    return make


@pytest.fixture
def bases(tiny_model: Path, tmp_path: Path) -> Mapping[str, str]:
    return {"llama": str(tiny_model), "bert": str(encoder_folder(tmp_path / "bert", "bert"))}


def tensors_of(export: Path) -> dict[str, torch.Tensor]:
    return load_file(export / "adapter_model.safetensors")


def assert_same(export: Path, other: Path, new: Collection[str] = ()) -> None:
    before, after = tensors_of(other), tensors_of(export)
    assert after.keys() - before.keys() == {*new} and before.keys() <= after.keys()
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=0, atol=1e-11)


def of_peft(base: str, folder: Path, outputs: int = 2, **options: Any) -> Path:
    """Saves a classifier's adapter as peft does, its numbers moved away from their start."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(3)
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=outputs)
    adapted = get_peft_model(model, LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj"], **options))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    adapted.save_pretrained(str(folder))
    return folder


@pytest.mark.parametrize("base", ["llama", "bert"])
def test_a_runs_head_is_trained_on(base: str, recipe_for: Any, bases: Mapping[str, str], tmp_path: Path) -> None:
    first = graftkit.run(recipe_for(model=bases[base]), out=tmp_path / "first")
    adapter = {"from": str(first.exports["peft"])}
    still = graftkit.run(recipe_for(model=bases[base], adapter=adapter, training=STILL), out=tmp_path / "still")
    assert first.before and first.after and still.before and still.after
    assert still.before.holdout_loss == first.after.holdout_loss < first.before.holdout_loss
    assert_same(still.exports["peft"], first.exports["peft"])
    assert any("goes on with the adapter's own head" in notice for notice in still.manifest["notices"])
    assert not any("starts anew" in notice for notice in still.manifest["notices"])
    assert still.manifest["exports"]["peft"]["proof"]["status"] == "proved"
    for folder in (still.folder, still.exports["peft"]):
        found, wanted = reload_any(str(folder)), reload_any(str(first.folder))
        assert isinstance(found, HeadModel) and isinstance(wanted, HeadModel) and found.labels == ["bad", "good"]
        one, other = (model.judge("the film was poor").facts["probabilities"] for model in (found, wanted))
        assert one == pytest.approx(other, abs=1e-6)


def test_the_order_of_labels_is_the_adapters(recipe_for: Any, tmp_path: Path) -> None:
    own = recipe_for({"use": "classification", "labels": ["good", "bad"]}, training={"steps": 2})
    adapter = {"from": str(graftkit.run(own, out=tmp_path / "first").exports["peft"])}
    kept = graftkit.run(recipe_for(adapter=adapter, training=STILL), out=tmp_path / "kept")
    assert kept.manifest["head"]["labels"] == ["good", "bad"]
    with pytest.raises(RecipeError, match=r"labels says bad, good, and the adapter, .* of these, good, bad") as caught:
        graftkit.plan(recipe_for({"use": "classification", "labels": ["bad", "good"]}, adapter=adapter))
    assert "keep the adapter's order" in caught.value.hint
    with pytest.raises(
        RecipeError, match=r"the adapter is a classifier of other labels \(good, bad\) .* \(bad, fine\)"
    ):
        graftkit.plan(recipe_for(labels={"good": "fine"}, adapter=adapter))


def test_another_kind_of_head_is_refused(recipe_for: Any, make_recipe: Any, tmp_path: Path) -> None:
    own = graftkit.run(recipe_for(training={"steps": 2}), out=tmp_path / "first")
    with pytest.raises(RecipeError, match="trained with a head on sequences, and the objective sft trains a language"):
        graftkit.plan(make_recipe(adapter={"from": str(own.exports["peft"])}))


def test_an_adapter_of_a_language_model_is_given_a_new_head(recipe_for: Any, make_recipe: Any, tmp_path: Path) -> None:
    first = graftkit.run(make_recipe(export=["peft"]), out=tmp_path / "first")
    adapter = {"from": str(first.exports["peft"])}
    done = graftkit.run(recipe_for(adapter=adapter, training=STILL), out=tmp_path / "run")
    assert "the base model has no score.weight: the head starts anew" in done.manifest["notices"]
    assert_same(done.exports["peft"], first.exports["peft"], ["base_model.model.score.weight"])


@pytest.mark.parametrize("also", [[], ["embed_tokens"]])
def test_training_goes_on_with_a_head_of_pefts(
    also: list[str], recipe_for: Any, tiny_model: Path, tmp_path: Path
) -> None:
    """The model's scores before training are peft's own, and what peft has trained comes out as it went in."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoTokenizer

    folder = of_peft(str(tiny_model), tmp_path / "peft", modules_to_save=["score", *also])
    done = graftkit.run(recipe_for(adapter={"from": str(folder)}, training=STILL), out=tmp_path / "run")
    told = "which label each of its scores is of: they are taken to be of bad, good, in this order"
    assert any(told in notice for notice in done.manifest["notices"])
    assert_same(done.exports["peft"], folder)
    model = AutoPeftModelForSequenceClassification.from_pretrained(str(folder), num_labels=2).eval()
    ids = AutoTokenizer.from_pretrained(str(tiny_model))("the film was poor", return_tensors="pt")
    with torch.no_grad():
        wanted = model(input_ids=ids["input_ids"]).logits[0].softmax(-1).tolist()
    for place in (done.folder, done.exports["peft"]):
        found = reload_any(str(place))
        assert isinstance(found, HeadModel)
        shares = found.judge("the film was poor").facts["probabilities"]
        assert [shares["bad"], shares["good"]] == pytest.approx(wanted, abs=1e-5)


def test_a_head_of_pefts_is_exported_by_a_recipe_alone(tiny_model: Path, tmp_path: Path) -> None:
    folder = of_peft(str(tiny_model), tmp_path / "peft", modules_to_save=["score"])
    with pytest.raises(FolderError, match=r"another head than a causal language model's \(SEQ_CLS\)") as caught:
        graftkit.export(folder, "merged", base=tiny_model, out=tmp_path / "out")
    assert "objective: classification, adapter: {from: FOLDER}" in caught.value.hint and not (tmp_path / "out").exists()


def test_a_head_for_other_labels_does_not_fit(recipe_for: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder = of_peft(str(tiny_model), tmp_path / "peft", outputs=3, modules_to_save=["score"])
    with pytest.raises(ModelError, match=r"its head has 'score.weight' as \[3, 64\], this run's has \[2, 64\]"):
        graftkit.run(recipe_for(adapter={"from": str(folder)}), out=tmp_path / "run")
