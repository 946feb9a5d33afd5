"""Training goes on with adapters that bring a head: graftkit's own, and peft's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from click.testing import CliRunner
from encoder_models import encoder_folder
from graftkit.cli import generate
from graftkit.errors import DataError, FolderError, ModelError, RecipeError, RequestError
from graftkit.flow.answering.reload import AdapterBase, reload, reload_any
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.flow.preparation.plan_adapter import plan_adapter
from graftkit.testing import isolated_host
from made_records import labelled_texts, written
from safetensors.torch import load_file, save_file

TEXTS = labelled_texts(60)
STILL = {"steps": 2, "learning_rate": 1e-12}
"""A training that moves no number by more than 2e-12."""


@pytest.fixture
def recipe_for(make_recipe: Any, tmp_path: Path) -> Any:
    def make(objective: Any = "classification", labels: Mapping[str, str] | None = None, **sections: Any) -> Any:
        rows = [{**row, "label": (labels or {}).get(row["label"], row["label"])} for row in TEXTS]
        path = tmp_path / f"records-{len(list(tmp_path.glob('records-*')))}.jsonl"
        written(path, rows)
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
    fields: dict[str, Any] = {"task_type": "SEQ_CLS", "r": 4, "target_modules": ["q_proj"], **options}
    adapted = get_peft_model(model, LoraConfig(**fields))
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


@pytest.mark.parametrize("outputs", [3, 1])
def test_a_head_of_pefts_is_exported_as_peft_computes_it(outputs: int, tiny_model: Path, tmp_path: Path) -> None:
    """Of a classifier or of a reward model: the merged model is transformers', and scores a text as peft does."""
    from peft import AutoPeftModelForSequenceClassification
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = of_peft(str(tiny_model), tmp_path / "peft", outputs, modules_to_save=["score", "norm"])
    text = "the film was poor"
    ids = AutoTokenizer.from_pretrained(str(tiny_model))(text, return_tensors="pt")["input_ids"]
    theirs = AutoPeftModelForSequenceClassification.from_pretrained(str(folder), num_labels=outputs).eval()
    with torch.no_grad():
        expected = theirs(input_ids=ids).logits
    for use in ("merged", "peft"):
        done = graftkit.export(folder, use, base=tiny_model, out=tmp_path / "out")
        assert done.proof["status"] == "proved"
        found = reload_any(str(done.folder))
        assert isinstance(found, HeadModel)
        assert found.labels == ["LABEL_0", "LABEL_1", "LABEL_2"][: outputs if outputs > 1 else 0]
        with torch.no_grad():
            torch.testing.assert_close(found.network(input_ids=ids).logits, expected, rtol=0, atol=1e-5)
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out" / "exports" / "merged")
    with torch.no_grad():
        torch.testing.assert_close(merged(input_ids=ids).logits, expected, rtol=0, atol=1e-5)
    on_base = reload_any(str(folder), on=AdapterBase(str(tiny_model)))
    assert isinstance(on_base, HeadModel) and on_base.judge(text).facts == found.judge(text).facts
    said = CliRunner().invoke(generate.command, [str(folder), text, "--base", str(tiny_model), "--offline", "--json"])
    assert said.exit_code == 0 and json.loads(said.stdout.splitlines()[-1]).items() >= found.judge(text).facts.items()
    with pytest.raises(FolderError, match="it scores whole sequences, and writes no answers"):
        reload(str(folder), on=AdapterBase(str(tiny_model)))
    with pytest.raises(RecipeError, match="of the architecture 'llama' can't be written as GGUF"):
        graftkit.export(folder, "gguf", base=tiny_model, out=tmp_path / "other")


def test_each_of_several_labels_is_judged_by_itself(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # or else the pipeline says so for good
    base, text = tmp_path / "base", "the film was poor"
    kind = {"num_labels": 3, "problem_type": "multi_label_classification"}
    AutoModelForSequenceClassification.from_pretrained(str(tiny_model), **kind).save_pretrained(str(base))
    AutoTokenizer.from_pretrained(str(tiny_model)).save_pretrained(str(base))
    folder = of_peft(str(base), tmp_path / "peft", 3)
    merged = graftkit.export(folder, "merged", base=base, out=tmp_path / "out", proof="later").folder
    (expected,) = pipeline("text-classification", str(merged), top_k=None)([text])
    shares = {one["label"]: one["score"] for one in expected}
    assert abs(sum(shares.values()) - 1) > 0.01, "they are no shares of a whole"
    for model in (reload_any(str(merged)), reload_any(str(folder), on=AdapterBase(str(base)))):
        assert isinstance(model, HeadModel)
        assert model.judge(text).facts["probabilities"] == pytest.approx(shares, abs=1e-5)
    assert "logits[0].sigmoid()" in (merged / "README.md").read_text()
    labelled = [{"text": f"a text {n}", "label": f"LABEL_{n % 3}"} for n in range(12)]
    with pytest.raises(
        DataError, match=r"a text and a label, .* multi-label-classification learns from texts with lists"
    ):
        graftkit.evaluate(str(merged), labelled)
    with pytest.raises(RequestError, match="its scores tell each label by itself, and the objective classification"):
        graftkit.evaluate(str(merged), labelled, overrides=["objective=classification"])
    [found] = graftkit.evaluate(str(merged), [{"text": text, "labels": ["LABEL_2"]}, {"text": "or not", "labels": []}])
    assert found.measured.metrics.keys() == {"subset_accuracy", "micro_f1", "macro_f1"}
    recipe = {"model": str(merged), "data": {"max_length": 64}, "objective": "classification"}
    told = graftkit.plan(recipe, train=labelled).notices
    assert any("it learns to give a text one" in notice for notice in told)


def test_a_card_does_not_move_the_positions_of_roberta(recipe_for: Any, tmp_path: Path) -> None:
    """It numbers them from its configuration's padding token on, which the tokenizer may not pad with."""
    base = encoder_folder(tmp_path / "roberta", "roberta")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "pad_token_id": 3}))
    result = graftkit.run(recipe_for(model=str(base)), out=tmp_path / "run")
    assert result.manifest["head"]["pad"] == 1 and result.manifest["exports"]["peft"]["proof"]["status"] == "proved"
    card = (result.exports["peft"] / "README.md").read_text()
    assert "AutoModelForSequenceClassification.from_pretrained" in card and "pad_token_id" not in card


def test_a_head_may_have_more_labels_than_the_model_is_wide(tmp_path: Path) -> None:
    """RoBERTa's head has a square matrix besides, whose rows are no labels."""
    base = encoder_folder(tmp_path / "roberta", "roberta")
    folder = of_peft(str(base), tmp_path / "peft", outputs=80, target_modules=["query"])
    head = plan_adapter(folder, isolated_host(), base=str(base)).head
    assert head is not None and len(head.labels) == 80


def test_a_runs_head_is_exported_from_its_adapter_alone(
    recipe_for: Any, bases: Mapping[str, str], tmp_path: Path
) -> None:
    """With its labels, whatever has become of the run."""
    first = graftkit.run(recipe_for(model=bases["bert"]), out=tmp_path / "first")
    folder = tmp_path / "adapter"
    shutil.move(first.exports["peft"], folder)
    done = graftkit.export(folder, "merged", out=tmp_path / "out")
    assert done.proof["status"] == "proved"
    found, wanted = reload_any(str(done.folder)), reload_any(str(folder))
    assert isinstance(found, HeadModel) and isinstance(wanted, HeadModel) and found.labels == ["bad", "good"]
    one, other = (model.judge("the film was poor").facts["probabilities"] for model in (found, wanted))
    assert one == pytest.approx(other, abs=1e-6)


def test_an_adapter_whose_head_is_nowhere_is_not_exported(tiny_model: Path, tmp_path: Path) -> None:
    folder = of_peft(str(tiny_model), tmp_path / "peft", modules_to_save=["score"])
    tensors = {name: tensor for name, tensor in tensors_of(folder).items() if "score" not in name}
    save_file(tensors, folder / "adapter_model.safetensors")
    settings = folder / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_bytes()) | {"modules_to_save": None}))
    with pytest.raises(FolderError, match="neither the adapter nor the base model has a head for that"):
        graftkit.export(folder, "merged", base=tiny_model, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_head_of_which_peft_saved_a_part_is_not_exported(bases: Mapping[str, str], tmp_path: Path) -> None:
    """This base has no pooler: transformers drew one, which peft left out."""
    folder = of_peft(bases["bert"], tmp_path / "peft", target_modules=["query"])
    with pytest.raises(ModelError, match=r"neither the adapter nor the base model has 'bert\.pooler\.dense\.bias'"):
        graftkit.export(folder, "merged", base=bases["bert"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_head_for_other_labels_does_not_fit(recipe_for: Any, tiny_model: Path, tmp_path: Path) -> None:
    folder = of_peft(str(tiny_model), tmp_path / "peft", outputs=3, modules_to_save=["score"])
    with pytest.raises(ModelError, match=r"its head has 'score.weight' as \[3, 64\], this run's has \[2, 64\]"):
        graftkit.run(recipe_for(adapter={"from": str(folder)}), out=tmp_path / "run")
