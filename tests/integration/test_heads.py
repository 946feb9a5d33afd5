"""Runs that train a head: what they learn, keep, export and refuse."""

from __future__ import annotations

import contextlib
import io
import json
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from click.testing import CliRunner
from encoder_models import encoder_folder
from graftkit.cli.main import cli as toolkit
from graftkit.errors import DataError, FolderError, ModelError, RecipeError, RequestError
from graftkit.flow.answering.reload import reload, reload_any
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.store.token_store import TokenStore
from graftkit.testing import tiny_model_folder
from made_records import WORDS, labelled_texts, multi_labelled_texts, paired_texts, scored_texts, written
from stopped_runs import run_until

TEXTS = labelled_texts(120)


@pytest.fixture
def with_head(make_recipe: Any, tmp_path: Path) -> Any:
    """Makes a recipe for an objective and the records that it learns from."""

    def make(objective: Any, records: Sequence[Mapping[str, Any]] = TEXTS, **sections: Any) -> dict[str, Any]:
        path = written(tmp_path / "records.jsonl", records)
        data = {"train": str(path), "holdout": 0.2, "max_length": 64, **sections.pop("data", {})}
        training = {"steps": 16, "tokens_per_step": 512, "learning_rate": 1e-2, "device": "cpu"}
        training |= sections.pop("training", {})
        found: dict[str, Any] = make_recipe(data=data, objective=objective, training=training, **sections)
        return found

    return make


@pytest.fixture
def bert(tmp_path: Path) -> str:
    return str(encoder_folder(tmp_path / "bert", "bert"))


def assert_forecast(result: Any) -> None:
    """Makes sure that what said `auto` was settled by a forecast of the run."""
    forecast = result.manifest["memory"]["forecast"]
    assert not forecast["unknown"] and "training" in {stage["stage"] for stage in forecast["stages"]}


def card_code(export: Path) -> str:
    """Returns the first Python program of an export's card."""
    found = re.search(r"```python\n(.*?)```", (export / "README.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


def run_card(export: Path, base: Path | None = None) -> str:
    """Runs that program in the export's folder, beside the base model."""
    code = card_code(export)
    if base is not None:
        code = code.replace(f"./{base.name}", str(base))
    printed = io.StringIO()
    with contextlib.chdir(export), contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {})
    return printed.getvalue()


def test_a_decoder_learns_labels_and_its_exports_are_loaded_as_classifiers(
    with_head: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qwen3 = {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
    model = tiny_model_folder(tmp_path / "qwen3", **qwen3, pad_token_id=3)  # which the tokenizer does not pad with
    exports = ["peft", "merged", {"use": "gguf", "type": "f32"}]
    training = {"steps": 24, "learning_rate": 3e-3}
    recipe = with_head("classification", model=str(model), quantizer="nf4", export=exports, training=training)
    result = graftkit.run(recipe, out=tmp_path / "run")
    before, after = result.before, result.after
    assert before is not None and after is not None and after.holdout_loss < before.holdout_loss / 2
    assert before.metrics["accuracy"] < 0.9 and after.metrics["accuracy"] == 1.0 and after.bits_per_byte is None
    assert result.manifest["head"] == {"kind": "sequence", "labels": ["bad", "good"], "pad": 256}
    assert result.manifest["stop_tokens"] == [] and result.manifest["data"]["prompts"] == "plain"
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    config = json.loads((result.exports["peft"] / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS" and config["modules_to_save"] == ["score"]
    merged = json.loads((result.exports["merged"] / "config.json").read_text())
    assert merged["architectures"] == ["Qwen3ForSequenceClassification"] and merged["id2label"] == {
        "0": "bad",
        "1": "good",
    }
    assert merged["pad_token_id"] == 256, "what the tokenizer pads with, by which the last token of a text is found"
    assert not (result.exports["merged"] / "generation_config.json").exists()
    assert not (result.exports["gguf"] / "Modelfile").exists(), "Ollama gives no scores of a text"
    assert 'pipeline_tag: "text-classification"' in (result.exports["merged"] / "README.md").read_text()

    from transformers import pipeline

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # or else the pipeline says so for good
    classify = pipeline("text-classification", str(result.exports["merged"]))
    asked = [f"the film {n} was {word} and long" for n, word in enumerate(("great", "poor", "awful", "lovely"))]
    assert [found["label"] for found in classify(asked, batch_size=4)] == ["good", "bad", "bad", "good"]
    expected = classify(asked, batch_size=4, top_k=None)
    for folder in (result.folder, *result.exports.values()):
        with pytest.raises((FolderError, ModelError), match="writes? .*answers"):
            reload(str(folder))
        model = reload_any(str(folder))
        assert isinstance(model, HeadModel) and model.labels == ["bad", "good"]
        for text, shares in zip(asked, expected, strict=True):
            found = model.judge(text).facts["probabilities"]
            assert found == pytest.approx({share["label"]: share["score"] for share in shares}, abs=1e-4)
    with pytest.raises(RequestError, match="the text is empty"):
        model.judge("")


def test_an_encoder_learns_labels_and_its_cards_programs_run(with_head: Any, tmp_path: Path, bert: str) -> None:
    exports = ["peft", "merged", {"use": "gguf", "type": "q8_0"}]
    recipe = with_head("classification", model=bert, export=exports, training={"dtype": "bfloat16", "steps": 28})
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.after is not None and result.after.metrics["accuracy"] > 0.9
    assert result.manifest["sequences"]["packed"]
    config = json.loads((result.exports["peft"] / "adapter_config.json").read_text())
    assert config["modules_to_save"] == ["bert.pooler", "classifier"]
    told = " ".join(result.manifest["notices"])
    assert "of the base model's tensors, such as 'cls.predictions." in told and "are not used" in told
    assert "classifier.weight" in told and "the head starts anew" in told
    file, text = result.exports["gguf"] / "model.gguf", "the film 3 was lovely"
    assert (
        "the score before the softmax of each label, in this order: bad, good"
        in (file.parent / "README.md").read_text()
    )
    models = [reload_any(str(place)) for place in (result.folder, file)]
    expected, found = (model.judge(text).facts for model in models if isinstance(model, HeadModel))
    assert found["probabilities"] == pytest.approx(expected["probabilities"], abs=0.02)
    for name in ("peft", "merged"):
        folder = result.exports[name]
        lines = run_card(folder, Path(bert) if name == "peft" else None).splitlines()
        assert [line.split()[0] for line in lines] == ["bad", "good"]
        assert sum(float(line.split()[1]) for line in lines) == pytest.approx(1, abs=1e-5)


def test_texts_learn_any_number_of_labels(
    with_head: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_head(
        "multi-label-classification", multi_labelled_texts(120), export=["peft", "merged"], training={"steps": 16}
    )
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.before is not None and result.after is not None
    assert result.after.metrics == {"subset_accuracy": 1.0, "micro_f1": 1.0, "macro_f1": 1.0}
    assert result.before.metrics["subset_accuracy"] < 0.9
    assert result.manifest["head"] == {"kind": "sequence", "labels": ["good", "long"], "pad": 256, "several": True}
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    assert store.by_example["labels"].shape == (96, 2) and store.by_example["labels"].dtype == "uint8"
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    merged = json.loads((result.exports["merged"] / "config.json").read_text())
    assert merged["problem_type"] == "multi_label_classification" and merged["id2label"] == {"0": "good", "1": "long"}
    lines = run_card(result.exports["peft"], tiny_model).splitlines()
    assert [line.split()[0] for line in lines] == ["good", "long"]

    from transformers import pipeline

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    classify = pipeline("text-classification", str(result.exports["merged"]), top_k=None)
    asked = ["the film 5 was lovely and long", "the film 6 was awful and short"]
    for folder in (result.folder, *result.exports.values()):
        model = reload_any(str(folder))
        assert isinstance(model, HeadModel)
        for text, labels in zip(asked, (["good", "long"], []), strict=True):
            facts = model.judge(text).facts
            theirs = {share["label"]: share["score"] for share in classify([text])[0]}
            assert facts["probabilities"] == pytest.approx(theirs, abs=1e-4)
            assert sorted(facts["labels"]) == labels
            assert facts.get("label") in (labels or [None]), (
                "the likeliest of labels that the text does not have is none"
            )
    [found] = graftkit.evaluate(result.folder)
    assert found.measured.holdout_loss == pytest.approx(result.after.holdout_loss, rel=1e-4)
    assert found.measured.metrics == pytest.approx(result.after.metrics)
    again = graftkit.plan({**recipe, "adapter": {"from": str(result.exports["peft"])}})
    assert again.head is not None and again.head.several and not any("by itself" in line for line in again.notices)
    one = [{"text": record["text"], "label": (record["labels"] or ["good"])[0]} for record in multi_labelled_texts(40)]
    single = with_head("classification", one, adapter={"from": str(result.exports["peft"])})
    assert any(line.startswith("the adapter judges each label by itself") for line in graftkit.plan(single).notices)


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_pairs_of_texts_are_told_apart_as_transformers_does(
    kind: str, with_head: Any, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = tiny_model if kind == "llama" else encoder_folder(tmp_path / "base", kind)
    if kind == "bert":  # with a class that gives no types by itself, as most in transformers 5
        said = json.loads((base / "tokenizer_config.json").read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}
        (base / "tokenizer_config.json").write_text(json.dumps(said))
    long = {"premise": "the film was long " * 9, "hypothesis": "it was short " * 4, "label": "no"}
    records = [*paired_texts(60), long]
    data = {"holdout": 0.0, "max_length": 48}
    training = {"steps": 4}
    recipe = with_head(
        "classification", records, model=str(base), export=["peft", "merged"], data=data, training=training
    )
    result = graftkit.run(recipe, out=tmp_path / "run")
    if kind == "bert":
        with pytest.raises(RecipeError, match="llama.cpp takes each token for one of the first type"):
            graftkit.plan({**recipe, "export": ["gguf"]}, as_run=True)

    from transformers import AutoTokenizer, pipeline

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.truncation_side = "right"
    texts = [(record["premise"], record["hypothesis"]) for record in records]
    typed = {"return_token_type_ids": kind == "bert"}
    theirs = [tokenizer(*pair, truncation="longest_first", max_length=48, **typed) for pair in texts]
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    assert [example.ids.tolist() for example in store] == [found["input_ids"] for found in theirs]
    if kind == "bert":
        assert [example.by_token["type"].tolist() for example in store] == [found["token_type_ids"] for found in theirs]
    else:
        assert "type" not in store.by_token
    assert result.manifest["head"]["pairs"]
    told = any("puts nothing between the two texts" in notice for notice in result.manifest["notices"])
    assert told == (kind == "llama")
    assert result.manifest["data"]["example_prompt"] == '{"text": "film 0 was lovely", "text_pair": "it was lovely"}'
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    for name, folder in result.exports.items():
        assert 'tokenizer("Hello", "Hi!"' in card_code(folder)
        assert len(run_card(folder, base if name == "peft" else None).splitlines()) == 2
    asked = {"text": "the film was lovely", "text_pair": "it was awful"}
    classify = pipeline("text-classification", str(result.exports["merged"]), top_k=None)
    expected = {share["label"]: share["score"] for share in classify(asked)}
    for source in (result.folder, *result.exports.values()):
        model = reload_any(str(source))
        assert isinstance(model, HeadModel)
        assert model.judge(json.dumps(asked)).facts["probabilities"] == pytest.approx(expected, abs=1e-4)
    pair, alone = graftkit.judge(result.folder, [asked, "the film was lovely"])
    assert pair.to_json()["probabilities"] == pytest.approx(expected, abs=1e-4) and not pair.notices
    assert "trained on pairs of texts, and asked of one" in alone.notices[0] and alone.prompt == "the film was lovely"
    assert graftkit.judge(result.folder, asked) == [pair]
    one = CliRunner().invoke(toolkit, ["generate", str(result.folder), "the film was lovely"])
    assert one.exit_code == 0 and "note: the model was trained on pairs of texts" in one.stderr
    for other in (records[0], {"text": "alone"}):
        with pytest.raises(RequestError, match="a JSON object with '(premise|text)'.* two texts, 'text'"):
            model.judge(json.dumps(other))
    [found] = graftkit.evaluate(result.exports["merged"], records[:8])
    shares = classify([{"text": first, "text_pair": second} for first, second in texts[:8]])
    likely = [
        next(share["score"] for share in of if share["label"] == record["label"])
        for of, record in zip(shares, records, strict=False)
    ]
    assert found.measured.holdout_loss == pytest.approx(-sum(map(math.log, likely)) / 8, abs=1e-4)
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    shown = CliRunner().invoke(toolkit, ["preview", str(path), "--json", "--records", "1"])
    assert shown.exit_code == 0 and '"text_pair"' in shown.stdout


def test_rare_labels_may_weigh_more(with_head: Any, tmp_path: Path) -> None:
    """As scikit-learn's `balanced` says it; the loss is the weighted mean, in training and of a finished run."""
    rare = [record for n, record in enumerate(TEXTS) if record["label"] == "good" or n % 3 == 0]
    options = {"use": "classification", "class_weights": "balanced"}
    result = graftkit.run(with_head(options, rare, training={"steps": 4}), out=tmp_path / "run")
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    labels = store.by_example["label"].tolist()
    expected = [len(labels) / (2 * labels.count(label)) for label in (0, 1)]
    assert "weight" not in store.by_example, "tokens are the same whatever labels weigh"
    assert result.manifest["recipe"]["objective"]["class_weights"] == pytest.approx(
        dict(zip(("bad", "good"), expected, strict=True))
    )
    assert result.after is not None and {"accuracy", "macro_f1"} == result.after.metrics.keys()
    [found] = graftkit.evaluate(result.folder)
    assert found.measured.holdout_loss == pytest.approx(result.after.holdout_loss, rel=1e-4)
    weighed = ["objective={use: classification, class_weights: {zzz: 5}}"]
    with pytest.raises(RequestError, match="gives the label 'zzz' a weight, which is none of the model's: bad, good"):
        graftkit.evaluate(result.folder, overrides=weighed)
    for weights, message in (
        ({"godo": 2.0}, "class_weights: no training record has the label 'godo'; they have bad, good"),
        ({"good": 0}, "class_weights: 'good' weighs 0, no number above 0"),
        ({"good": float("inf")}, "class_weights"),
        ({"good": True}, "class_weights"),
        ("balance", "class_weights"),
    ):
        with pytest.raises(RecipeError, match=message) as refused:
            graftkit.plan(with_head({"use": "classification", "class_weights": weights}, rare))
        assert refused.value.where


def test_labels_of_sets_may_weigh_more(with_head: Any, tmp_path: Path) -> None:
    """Balanced: records without the label / those with it, as pos_weight; 1 where every record has it."""
    records = [record for n, record in enumerate(multi_labelled_texts(120)) if n % 2 == 0 or n % 6 == 1]
    for record in records:
        record["labels"].append("film")
    options = {"use": "multi-label-classification", "class_weights": "balanced"}
    result = graftkit.run(with_head(options, records, training={"steps": 4}), out=tmp_path / "run")
    rows = TokenStore.load(result.folder / "tokens" / "train.safetensors").by_example["labels"].astype(int)
    having = rows.sum(0)
    assert having[0] == len(rows) and 0 < having[1] < having[2] < len(rows)
    assert any("every training record has the label 'film'" in notice for notice in result.manifest["notices"])
    expected = {"film": 1, "good": (len(rows) - having[1]) / having[1], "long": (len(rows) - having[2]) / having[2]}
    assert result.manifest["recipe"]["objective"]["class_weights"] == pytest.approx(expected)
    [found] = graftkit.evaluate(result.folder)
    assert result.after is not None and found.measured.holdout_loss == pytest.approx(
        result.after.holdout_loss, rel=1e-4
    )
    [plain] = graftkit.evaluate(result.folder, overrides=["objective=multi-label-classification"])
    assert plain.measured.holdout_loss != pytest.approx(found.measured.holdout_loss, rel=1e-2)
    with pytest.raises(RecipeError, match="no training record has the label 'godo'; they have film, good, long"):
        graftkit.plan(with_head({**options, "class_weights": {"godo": 2.0}}, records))


@pytest.mark.parametrize("objective", ["classification", "multi-label-classification", "token-classification"])
def test_balanced_weights_count_records_as_often_as_they_are_seen(
    with_head: Any, tmp_path: Path, objective: str
) -> None:
    """As scikit-learn's compute_class_weight with sample_weight: what is seen twice an epoch counts twice."""
    several = objective == "multi-label-classification"

    def record(text: str, label: str) -> dict[str, Any]:
        if objective == "token-classification":  # words, not records, are counted
            return {"tokens": [text], "tags": [label]}
        return {"text": text, **({"labels": [label]} if several else {"label": label})}

    records = [record(f"film {n}", "bad" if n % 4 else "good") for n in range(80)]
    often = [record(f"other {n}", "good") for n in range(10)]
    if objective == "token-classification":
        records = [
            {name: [*one[name], *other[name]] for name in one}
            for one, other in zip(records[::2], records[1::2], strict=True)
        ]
    recipe = with_head({"use": objective, "class_weights": "balanced"}, records)
    more = written(tmp_path / "often.jsonl", often)
    entries = [recipe["data"]["train"], {"path": str(more), "weight": 2.5}]
    plan = graftkit.plan({**recipe, "data": {**recipe["data"], "train": entries, "holdout": 0}})
    bad, good = 60, 20 + 2.5 * 10
    expected = (
        {"bad": good / bad, "good": bad / good} if several else {"bad": 105 / (2 * bad), "good": 105 / (2 * good)}
    )
    assert plan.bound.objective_config.label_weights == pytest.approx(expected)


def test_a_label_that_all_texts_have_weighs_1_however_often_they_are_seen(with_head: Any) -> None:
    """Sums of 0.7 round: what is left of all records without those with the label would be 7e-16 of them."""
    records = [
        {"text": f"film {n}", "labels": ["film", *(["x"] if n % 3 else []), *([] if n % 5 else ["y"])]}
        for n in range(70)
    ]
    recipe = with_head({"use": "multi-label-classification", "class_weights": "balanced"}, records)
    entry = {"path": recipe["data"]["train"], "weight": 0.7}
    plan = graftkit.plan({**recipe, "data": {**recipe["data"], "train": [entry], "holdout": 0}})
    assert plan.bound.objective_config.label_weights["film"] == 1


def test_texts_learn_a_number(with_head: Any, tmp_path: Path, bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    recipe = with_head("regression", scored_texts(120), model=bert, export=["peft", "merged"], training={"steps": 4})
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert result.after is not None and {"mae", "pearson"} == result.after.metrics.keys()
    assert result.manifest["head"] == {"kind": "sequence", "labels": ["score"], "pad": 0}
    assert not any("nothing is learnt of it" in notice for notice in result.manifest["notices"])
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    merged = json.loads((result.exports["merged"] / "config.json").read_text())
    assert merged["problem_type"] == "regression" and merged["id2label"] == {"0": "score"}
    text = "the film 5 was lovely and long"

    from transformers import pipeline

    [theirs] = pipeline("text-classification", str(result.exports["merged"]))([text])
    for folder in (result.folder, *result.exports.values()):
        model = reload_any(str(folder))
        assert isinstance(model, HeadModel)
        assert model.judge(text).facts["score"] == pytest.approx(theirs["score"], abs=1e-4)
    assert float(run_card(result.exports["merged"])) == pytest.approx(0, abs=2)


def test_texts_become_the_tokens_that_transformers_makes_of_them(with_head: Any, tmp_path: Path, bert: str) -> None:
    from transformers import AutoTokenizer

    long = {"text": "the film was long " * 30, "label": "good"}
    recipe = with_head("classification", [*TEXTS[:20], long], model=bert, data={"holdout": 0.0, "max_length": 24})
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert any("and lose their end" in notice for notice in result.manifest["notices"])
    tokenizer = AutoTokenizer.from_pretrained(bert)
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    expected = [
        tokenizer(record["text"], truncation=True, max_length=24)["input_ids"] for record in (*TEXTS[:20], long)
    ]
    assert [example.ids.tolist() for example in store] == expected
    assert store.by_example["label"].tolist() == [record["label"] == "good" for record in (*TEXTS[:20], long)]


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(with_head: Any, tmp_path: Path, bert: str) -> None:
    recipe = with_head("classification", model=bert, training={"steps": 6})
    whole = graftkit.run(recipe, out=tmp_path / "whole")
    run_until(3, recipe, tmp_path / "stopped")
    graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    files = [folder / "adapter" / "adapter.safetensors" for folder in (whole.folder, tmp_path / "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
    from safetensors import safe_open

    with safe_open(files[0], "pt") as file:
        assert {"classifier.weight", "bert.pooler.dense.bias"} <= set(file.keys())


def test_training_goes_on_with_a_classifiers_own_head_and_order(with_head: Any, tmp_path: Path) -> None:
    named = {"use": "classification", "labels": ["good", "bad"]}
    first = graftkit.run(with_head(named, export=["merged"]), out=tmp_path / "first")
    again = with_head("classification", model=str(first.exports["merged"]), training={"steps": 1})
    result = graftkit.run(again, out=tmp_path / "again")
    assert result.manifest["head"]["labels"] == ["good", "bad"]
    assert first.after is not None and result.before is not None
    assert result.before.metrics["accuracy"] == first.after.metrics["accuracy"] == 1.0
    with pytest.raises(ModelError, match=r"scores whole sequences .* the objective sft trains language models"):
        graftkit.plan({**again, "objective": "sft"})
    with pytest.raises(RecipeError, match="objective.labels says bad, good"):  # the head's rows would be exchanged
        graftkit.plan({**again, "objective": {"use": "classification", "labels": ["bad", "good"]}})
    graftkit.plan({**again, "objective": named})
    sets = [{"text": record["text"], "labels": [record["label"]]} for record in TEXTS]
    by_sets = graftkit.plan(with_head("multi-label-classification", sets, model=str(first.exports["merged"])))
    assert by_sets.head is not None and by_sets.head.labels == ["good", "bad"] and by_sets.head.several
    assert any("learns to judge each label by itself" in notice for notice in by_sets.notices)
    numbers = with_head("regression", scored_texts(20), model=str(first.exports["merged"]))
    with pytest.raises(RecipeError, match="base model's head has 2 outputs, and that of the objective regression has"):
        graftkit.plan(numbers)
    three = [{**record, "label": f"{record['label']}{n % 2}"} for n, record in enumerate(TEXTS)]
    with pytest.raises(RecipeError, match=r"a classifier of other labels \(good, bad\)"):
        graftkit.plan(with_head("classification", three, model=str(first.exports["merged"])))
    spam = [{**record, "label": {"good": "ham", "bad": "spam"}[record["label"]]} for record in TEXTS]
    with pytest.raises(RecipeError, match=r"other labels \(good, bad\) than the records' \(ham, spam\)"):
        graftkit.plan(with_head("classification", spam, model=str(first.exports["merged"])))
    config = first.exports["merged"] / "config.json"
    said = json.loads(config.read_text())
    one = {"id2label": {"0": "good"}, "label2id": {"good": 0}, "problem_type": "multi_label_classification"}
    config.write_text(json.dumps({**said, **one}))
    numbers = with_head("regression", scored_texts(20), model=str(first.exports["merged"]))
    assert any("it learns to give a text a number" in notice for notice in graftkit.plan(numbers).notices)
    config.write_text(json.dumps({**said, "id2label": {"0": "LABEL_0", "1": "LABEL_1"}}))
    with pytest.raises(ModelError, match="has a head of its own"):  # which says nothing of what it is of
        graftkit.run({**with_head("classification", three), "model": str(config.parent)}, out=tmp_path / "other")


def test_a_label_that_nothing_is_learnt_of_is_refused(with_head: Any, tmp_path: Path) -> None:
    held = tmp_path / "held.jsonl"
    held.write_text(json.dumps({"text": "text", "label": "godo"}) + "\n")
    recipe = with_head("classification")
    recipe["data"]["holdout"] = str(held)
    with pytest.raises(DataError, match=r"the label 'godo' stands in holdout records alone") as refused:
        graftkit.plan(recipe)
    assert str(refused.value.where).endswith("held.jsonl:1")
    planned = graftkit.plan({**recipe, "objective": {"use": "classification", "labels": ["good", "bad", "godo"]}})
    assert "no training record has the label 'godo': nothing is learnt of it" in planned.notices
    alone = [{"text": f"text {n}", "label": f"{n}"} for n in range(40)]  # a column of numbers, taken for a label
    [told] = [
        line for line in graftkit.plan(with_head("classification", alone)).notices if "no training record" in line
    ]
    assert told.count("'") == 10 and "and 3 more" in told, "those of the eight records that are held out"


@pytest.mark.parametrize("objective", ["classification", "masked-lm", "sft"])
def test_keys_that_lay_conversations_out_are_told_where_there_are_none(
    with_head: Any, bert: str, objective: str
) -> None:
    """A text with a label is a conversation to fine-tuning alone; others are told no duty of an export either."""
    data = {"turns": "each", "system": "first_user", "end_of_turn": "no special token"}
    if objective == "sft":
        del data["end_of_turn"]
    recipe = with_head(objective, data=data, export=["merged"])
    notices = graftkit.plan(recipe | ({"model": bert} if objective == "masked-lm" else {})).notices
    told = {line.split()[0] for line in notices if line.startswith("data.") and " has no effect: " in line}
    assert told == (set() if objective == "sft" else {f"data.{key}" for key in data})
    assert any("another program must" in line for line in notices) == (objective == "sft")


def test_labels_that_are_probably_one_are_told(with_head: Any) -> None:
    """They would be classes of their own, which no record tells apart."""
    spelt = ["good", "Good", "bad", " bad", "fine", "o\ufb03ce", "office"]
    rows = [{"text": f"text {n}", "label": spelt[n % len(spelt)]} for n in range(70)]
    told = [line for line in graftkit.plan(with_head("classification", rows)).notices if "told apart" in line]
    assert told == [
        "labels that differ by case or white space alone are told apart: ' bad', 'bad'; 'Good', 'good'; "
        "'office', 'o\ufb03ce'"
    ]
    assert not [line for line in graftkit.plan(with_head("classification")).notices if "told apart" in line]


@pytest.mark.parametrize("objective", ["classification", "multi-label-classification", "token-classification"])
def test_a_text_with_other_labels_in_another_record_is_told(with_head: Any, objective: str) -> None:
    """Once, with how many there are and a place; the same record again is none, and a pair is both of its texts."""

    def record(text: str, label: str) -> dict[str, Any]:
        if objective == "token-classification":  # the same set of tags, in another order
            return {"tokens": [*text.split(), "x"], "tags": [label, *"ab"]}
        more = {"text_pair": text[-1]} if objective == "classification" else {}
        return {"text": text, **more, **({"label": label} if objective == "classification" else {"labels": [label]})}

    def told(records: list[dict[str, Any]]) -> list[str]:
        plan = graftkit.plan(with_head(objective, records))
        return [line for line in plan.notices if "in one record than in another" in line]

    records = [record(f"film {n}", "ab"[n % 2]) for n in range(20)]
    assert not told([*records, *records[:5]])
    [line] = told([*records, *records[:5], record("film 3", "a"), record("film 6", "b"), record("film 6", "b")])
    what = "tags" if objective == "token-classification" else "labels"
    assert line.startswith(f"2 texts have other {what} in one record than in another, such as ")
    assert ".jsonl:4 and " in line and line.endswith(".jsonl:26: not both are learnt")
    [line] = told([*records, record("film 3", "a")])
    assert line.startswith("1 text has other ")


def test_a_config_that_leaves_out_the_types_of_pairs_is_refused(with_head: Any, bert: str) -> None:
    said = json.loads((path := Path(bert) / "config.json").read_text())
    del said["type_vocab_size"]
    path.write_text(json.dumps(said))
    recipe = with_head("classification", paired_texts(20), model=bert)
    with pytest.raises(ModelError, match="leaves out type_vocab_size, which is 2 then: the two texts of a pair"):
        graftkit.plan(recipe, as_run=True)
    graftkit.plan(with_head("classification", labelled_texts(20), model=bert), as_run=True)


def test_texts_alone_among_pairs_are_told(with_head: Any) -> None:
    """A second text that is null, as in tables with gaps, would change what is learnt unsaid."""
    pairs = [{"text": f"text {n}", "text_pair": f"other {n}", "label": "ab"[n % 2]} for n in range(40)]
    gaps = [record | ({"text_pair": None} if number % 8 == 3 else {}) for number, record in enumerate(pairs)]
    [told] = [line for line in graftkit.plan(with_head("classification", gaps)).notices if "others have two" in line]
    assert told.endswith(":4: the record has one text, and others have two: 5 of 40 records are learnt as a text alone")
    assert not [line for line in graftkit.plan(with_head("classification", pairs)).notices if "have two" in line]


def test_what_has_no_head_is_refused_before_records_are_encoded(with_head: Any, tmp_path: Path) -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        (
            {"export": ["gguf"]},
            "'gguf' can't be written: a head on sequences of the architecture 'llama'",
        ),
        ({"export": [{"use": "merged", "onto": "auto"}]}, "onto: auto"),
        ({"evaluation": {"answers": 4}}, "which writes no answers"),
        ({"tokenizer": {"extend": {"tokens": 8}}}, "own vocabulary"),
        ({"objective": {"use": "classification", "labels": ["good", "so-so"]}}, "have the label 'bad'"),
        ({"objective": {"use": "classification", "labels": ["good"]}}, "two at least"),
    ]
    for sections, message in refused:
        recipe = with_head("classification") | sections
        with pytest.raises(RecipeError, match=re.escape(message)):
            graftkit.run(recipe, out=tmp_path / "run")
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "records,message",
    [
        ([{"text": f"{n}", "label": "same"} for n in range(9)], "every record has the label 'same'"),
        (
            [{"text": f"{n}", "labels": ["a"]} for n in range(9)],
            "From several labels of a text learns objective: multi",
        ),
        ([{"text": f"{n}", "label": n / 2} for n in range(9)], "From numbers learns objective: regression."),
        ([{"text": f"text {n}"} for n in range(9)], "learns from texts with labels"),
        ([{"prompt": "a", "chosen": f"{n}", "rejected": "c"} for n in range(9)], "learns from texts with labels"),
    ],
)
def test_records_without_labels_are_refused(with_head: Any, records: Any, message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        graftkit.plan(with_head("classification", records))


def test_records_of_another_kind_say_which_objective_learns_them(with_head: Any) -> None:
    ones = [{"text": f"text {n}", "labels": []} for n in range(9)]
    same = [{"text": f"text {n}", "score": 0.5} for n in range(9)]
    for objective, records, message in (
        ("multi-label-classification", TEXTS, 'for this one write "labels"'),
        ("multi-label-classification", same, "learns objective: regression"),
        ("multi-label-classification", ones, "no record has a label"),
        ("regression", TEXTS, "columns: {score: label}"),
        ("regression", ones, "learns objective: multi-label-classification"),
        ("regression", same, "every record has the number 0.5"),
        ("regression", [{"text": "a"}], "columns: {text: ..., score: ...}"),
        ("dpo", same, "a text and a number, and the objective dpo learns from pairs"),
    ):
        with pytest.raises(DataError, match=re.escape(message)):
            graftkit.plan(with_head(objective, records))
    far = [{"text": f"text {n}", "score": 1990 + n} for n in range(9)]
    [told] = [line for line in graftkit.plan(with_head("regression", far)).notices if "far from 0" in line]
    assert "between 1990 and 1998" in told
    assert not [line for line in graftkit.plan(with_head("regression", scored_texts(20))).notices if "far" in line]
    for records in (ones, same):
        [told] = [line for line in graftkit.plan(with_head("sft", records)).notices if "beside its text" in line]
        assert "records.jsonl:1: the record has" in told and "objective sft does not learn" in told


def test_labels_are_learnt_as_answers_where_nothing_else_is_said(with_head: Any, tmp_path: Path) -> None:
    result = graftkit.run(with_head("sft", training={"steps": 1}), out=tmp_path / "run")
    assert result.manifest["head"] is None and result.manifest["data"]["prompts"] == "chat"
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    assert "label" not in store.by_example and torch.tensor(store.loss_tokens.tolist()).min() > 1


PAIRS: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": f"film {n}?"}],
        "chosen": [{"role": "assistant", "content": WORDS["good"][n % 2]}],
        "rejected": [{"role": "assistant", "content": WORDS["bad"][n % 2]}],
    }
    for n in range(60)
]


def test_a_reward_model_puts_pairs_in_order(with_head: Any, tmp_path: Path, tiny_model: Path) -> None:
    recipe = with_head("reward", PAIRS, export=["peft", "merged"], training={"microbatch_tokens": "auto"})
    result = graftkit.run(recipe, out=tmp_path / "run")
    before, after = result.before, result.after
    assert before is not None and after is not None and after.holdout_loss < before.holdout_loss
    assert after.metrics["accuracy"] == 1.0 and after.metrics["margin"] > before.metrics["margin"]
    assert result.manifest["head"] == {"kind": "sequence", "labels": [], "pad": 256}
    assert_forecast(result)
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    config = json.loads((result.exports["merged"] / "config.json").read_text())
    assert list(config["id2label"]) == ["0"]
    rewards = {
        name: float(run_card(folder, tiny_model if name == "peft" else None)) for name, folder in result.exports.items()
    }
    assert rewards["peft"] == pytest.approx(rewards["merged"], abs=1e-4)

    from transformers import pipeline

    text, merged = "film 3?", str(result.exports["merged"])
    expected = pipeline("text-classification", merged, function_to_apply="none")(text)[0]["score"]
    talk = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}]  # the card's
    for folder in (result.folder, *result.exports.values()):
        model = reload_any(str(folder))
        assert isinstance(model, HeadModel)
        assert model.judge(text).facts["reward"] == pytest.approx(expected, abs=1e-4)
        assert model.judge(json.dumps(talk)).facts["reward"] == pytest.approx(rewards["merged"], abs=1e-4)
    called = {**talk[1], "tool_calls": [{"name": "look", "arguments": {}}]}
    for asked, told in (
        ([{"role": "user"}], "has a role and a content"),
        ([talk[0], called], "message 2 has 'tool_calls', which would be left out"),
        ([{**talk[0], "role": "human"}, talk[1]], "message 1 is of the role 'human'"),
        ([*talk, talk[0]], "the last message is of the role user"),
        ([talk[0], {**talk[1], "content": ""}], "the last message is empty"),
        ([{**talk[0], "content": "\ud800"}, talk[1]], "the text is not UTF-8"),
    ):
        with pytest.raises(RequestError, match=rf"texts\[1\]: .*{told}"):
            graftkit.judge(result.folder, ["a", asked])


def test_pairs_become_the_tokens_that_trl_makes_of_them(with_head: Any, tmp_path: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    recipe = with_head("reward", PAIRS[:9], data={"holdout": 0.0}, training={"steps": 1})
    result = graftkit.run(recipe, out=tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    for record, example in zip(PAIRS[:9], store, strict=True):
        asked: Any = [record["prompt"] + record[side] for side in ("chosen", "rejected")]
        expected = [tokenizer.apply_chat_template(messages, return_dict=False) for messages in asked]
        assert [sequence.ids.tolist() for sequence in example.sequences] == expected


PLAIN = [{"text": f"the film {n % 10} was {'lovely and long' if n % 2 else 'awful and short'}"} for n in range(100)]


def test_an_encoder_learns_to_fill_in_masked_tokens(with_head: Any, tmp_path: Path, bert: str) -> None:
    training = {"steps": 12, "checkpoint_every": 4, "microbatch_tokens": "auto"}
    recipe = with_head("masked-lm", PLAIN, model=bert, export=["peft", "merged"], training=training)
    result = graftkit.run(recipe, out=tmp_path / "run")
    before, after = result.before, result.after
    assert before is not None and after is not None and after.holdout_loss < before.holdout_loss
    assert after.bits_per_byte is None and result.manifest["head"]["kind"] == "masked"
    assert_forecast(result)
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    config = json.loads((result.exports["merged"] / "config.json").read_text())
    assert config["architectures"] == ["BertForMaskedLM"]
    assert json.loads((result.exports["peft"] / "adapter_config.json").read_text())["task_type"] is None

    from transformers import pipeline

    text = "the film was [MASK] and [MASK]"
    expected = pipeline("fill-mask", str(result.exports["merged"]))(text)
    for folder in (result.folder, *result.exports.values()):
        model = reload_any(str(folder))
        assert isinstance(model, HeadModel)
        for fills, told in zip(model.judge(text).facts["fills"], expected, strict=True):
            assert [fill["id"] for fill in fills] == [fill["token"] for fill in told]
            assert [fill["token"] for fill in fills] == [fill["token_str"] for fill in told]
            assert [fill["probability"] for fill in fills] == pytest.approx([f["score"] for f in told], abs=1e-4)
    with pytest.raises(RequestError, match=r"has no \[MASK\]"):
        model.judge("the film was long")
    filled = [run_card(folder, Path(bert) if name == "peft" else None) for name, folder in result.exports.items()]
    assert filled[0] == filled[1] and len(filled[0].splitlines()) == 5
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert all(0.08 < line["loss_tokens"] / line["tokens"] < 0.25 for line in lines)
    recipe |= {"export": []}
    run_until(7, recipe, tmp_path / "stopped")
    graftkit.run(recipe, out=tmp_path / "stopped", resume=True)
    files = [folder / "adapter" / "adapter.safetensors" for folder in (result.folder, tmp_path / "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(ModelError, match="fills in masked tokens .* is no causal language model"):
        graftkit.plan({**recipe, "objective": "sft"})


def test_long_texts_are_cut_into_windows_as_encoders_see_texts(with_head: Any, tmp_path: Path, bert: str) -> None:
    """No mask is a token that the model has no row for, such as one that was added to the tokenizer alone."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(bert)
    tokenizer.add_tokens([f"<{number}>" for number in range(300)])
    tokenizer.save_pretrained(bert)
    text = "the film was long and lovely " * 8
    objective = {"use": "masked-lm", "probability": 0.9}
    recipe = with_head(objective, [{"text": text}], model=bert, data={"holdout": 0.0, "max_length": 20})
    result = graftkit.run({**recipe, "training": {**recipe["training"], "steps": 1}}, out=tmp_path / "run")
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    ids = AutoTokenizer.from_pretrained(bert)(text, add_special_tokens=False)["input_ids"]
    assert [example.ids.tolist() for example in store] == [[2, *ids[at : at + 18], 3] for at in range(0, len(ids), 18)]


@pytest.mark.parametrize(
    ("column", "value", "described"),
    [
        ("label", "good", "a label beside its text, which the objective masked-lm does not learn: classification does"),
        ("labels", ["good"], "a list of labels beside its text"),
        ("score", 0.5, "a number beside its text"),
    ],
)
def test_masks_learn_the_texts_alone_of_records_that_have_more(
    column: str, value: Any, described: str, with_head: Any, bert: str, tmp_path: Path
) -> None:
    records = [{"text": record["text"], column: value} for record in TEXTS[:8]]
    recipe = with_head("masked-lm", records, model=bert, data={"holdout": 0.0}, training={"steps": 1})
    result = graftkit.run(recipe, out=tmp_path / "run")
    [told] = [line for line in result.manifest["notices"] if "beside its text" in line]
    assert f"records.jsonl:1: the record has {described}" in told
    from transformers import AutoTokenizer

    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    expected = AutoTokenizer.from_pretrained(bert)([record["text"] for record in records])["input_ids"]
    assert sorted(example.ids.tolist() for example in store) == sorted(expected)
    assert not {"label", "labels", "score"} & store.by_example.keys()


def test_records_and_models_that_masks_do_not_fit_are_refused(with_head: Any, bert: str, tiny_model: Path) -> None:
    answers = [{"prompt": f"prompt {n}", "completion": f"answer {n}"} for n in range(9)]
    with pytest.raises(DataError, match="learns from plain texts"):
        graftkit.plan(with_head("masked-lm", answers, model=bert))
    with pytest.raises(ModelError, match="names no mask token"):
        graftkit.plan(with_head("masked-lm", PLAIN))
    with pytest.raises(RecipeError, match=r"own vocabulary\n.* resize_token_embeddings"):
        graftkit.plan(with_head("masked-lm", PLAIN, model=bert, tokenizer={"extend": {"tokens": 5}}))
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(bert, mask_token="<hole>").save_pretrained(bert)
    with pytest.raises(ModelError, match="'<hole>' has the id 89; .* 89 rows, none for it"):
        graftkit.plan(with_head("masked-lm", PLAIN, model=bert))


def test_commands_know_of_heads(with_head: Any, tmp_path: Path) -> None:
    recipe = with_head("classification", export=["peft"], training={"steps": 2})
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    cli = CliRunner()
    out = tmp_path / "run"
    done = cli.invoke(toolkit, ["run", str(path), "--out", str(out)])
    assert done.exit_code == 0 and "toolkit verify" in done.output
    assert re.search(r"toolkit generate \S+ 'the film \d+ was \w+ and long'", done.output)
    halted = cli.invoke(toolkit, ["generate", str(out)], input="a great film\n" + "film " * 900)
    assert isinstance(halted.exception, RequestError) and halted.exception.where == "standard input:2"
    lines = cli.invoke(toolkit, ["generate", str(out), "--json"], input="a great film\n\nan awful film\n")
    judged = [json.loads(line) for line in lines.stdout.splitlines()]
    assert [found["prompt"] for found in judged] == ["a great film", "an awful film"], lines.output
    assert all(sum(found["probabilities"].values()) == pytest.approx(1) for found in judged)
    plain = cli.invoke(toolkit, ["generate", str(out / "exports/peft"), "a great film"])
    assert re.fullmatch(r"(bad|good) 0\.\d{4}, (bad|good) 0\.\d{4}\n", plain.stdout), plain.output
    shown = cli.invoke(toolkit, ["preview", str(path), "--json", "--records", "1"])
    authors = json.loads(shown.stdout)["authors"]
    assert [part["author"] for part in authors] == ["text", "label"] and authors[1]["text"] in WORDS
    told = cli.invoke(toolkit, ["plan", str(path)])
    assert told.exit_code == 0 and "B at its peak" in told.output, told.output
    for command, message in (
        (["generate", str(out), "a film", "--temperature", "1"], "--temperature: the model judges texts"),
        (["generate", str(out), "a film", "--compare"], "--compare: the model judges texts"),
        (
            ["export", str(out / "exports/peft"), "--to", "gguf", "--out", str(tmp_path / "m")],
            "a head on sequences of the architecture 'llama' can't be written as GGUF",
        ),
    ):
        refused = cli.invoke(toolkit, command)
        assert message in f"{refused.exception}{refused.output}"
    again = cli.invoke(toolkit, ["export", str(out), "--to", "merged"])
    assert again.exit_code == 0, again.output
    assert json.loads((out / "exports/merged/graftkit.json").read_text())["proof"]["status"] == "proved"


def test_labelled_records_take_three_commands(bert: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model without a chat template, which learns texts alone; the recipe says why, and what else there is."""
    monkeypatch.chdir(tmp_path)
    Path("train.csv").write_text("text,label\n" + "".join(f"{r['text']},{r['label']}\n" for r in TEXTS))
    cli = CliRunner()
    made = cli.invoke(toolkit, ["init", "--model", bert, "--train", "train.csv"])
    assert made.exit_code == 0 and "a few labels: objective: classification" in made.output, made.output
    assert "objective: classification # by a head" in Path("recipe.yaml").read_text()
    done = cli.invoke(toolkit, ["run", "recipe.yaml", "--out", "run", "--set", "training.epochs=1"])
    assert done.exit_code == 0, done.output
    said = cli.invoke(toolkit, ["generate", "run", "the film was lovely"])
    assert re.match(r"(bad|good) 0\.\d{4}, ", said.stdout), said.output


def test_init_writes_no_objective_that_does_not_train_the_model(bert: str, tiny_model: Path, tmp_path: Path) -> None:
    path, cli, recipe = str(written(tmp_path / "train.jsonl", PLAIN)), CliRunner(), tmp_path / "r.yaml"

    def init(model: str | Path, *more: str) -> Any:
        return cli.invoke(toolkit, ["init", str(recipe), "--model", str(model), "--train", path, *more])

    for model, objective, message in (
        (tiny_model, "masked-lm", "no mask token"),
        (bert, "sft", "trains language models"),
    ):
        refused = init(model, "--objective", objective)
        assert isinstance(refused.exception, ModelError) and message in str(refused.exception)
        assert not recipe.exists()
    assert init(bert).exit_code == 0
    assert graftkit.plan(str(recipe)).bound.objective.use == "masked-lm"
    recipe.unlink()
    alone = shutil.copytree(tiny_model, tmp_path / "alone") / "config.json"
    alone.write_text(json.dumps({**json.loads(alone.read_text()), "architectures": ["LlamaModel"]}))
    done = init(alone.parent, "--objective", "sft")
    assert done.exit_code == 0 and "not looked at" not in done.output, "its output layer may be its embedding"


@pytest.mark.parametrize(
    "records,objective,shown",
    [
        (multi_labelled_texts(40), "multi-label-classification", {"labels": ["", "good", "long", "good, long"]}),
        (scored_texts(40), "regression", {"score": ["0.75", "-0.5"]}),
        ([{"text": f"film {n}", "label": n / 7} for n in range(1, 7)], "regression", None),
        ([{"text": f"film {n}", "labels": [f"label {n}"]} for n in range(40)], "sft", None),
        ([{"text": f"film {n}", "labels": []} for n in range(40)], "sft", None),
    ],
)
def test_init_takes_lists_of_few_labels_and_numbers(
    bert: str, tmp_path: Path, records: Any, objective: str, shown: Any
) -> None:
    """The recipe is one that plans, and preview shows what is learnt of a text."""
    path, cli = written(tmp_path / "train.jsonl", records), CliRunner()
    model = bert if objective != "sft" else str(tiny_model_folder(tmp_path / "tiny"))
    found = cli.invoke(toolkit, ["init", str(tmp_path / "r.yaml"), "--model", model, "--train", str(path)])
    assert found.exit_code == 0 and (f"objective: {objective}" in found.output) == (objective != "sft"), found.output
    planned = graftkit.plan(str(tmp_path / "r.yaml"))
    assert planned.bound.objective.use == objective
    if shown:
        lines = cli.invoke(toolkit, ["preview", str(tmp_path / "r.yaml"), "--json", "--records", "1"])
        _, learnt = json.loads(lines.stdout)["authors"]
        assert learnt["text"] in shown[learnt["author"]]


@pytest.mark.parametrize(
    "label",
    [
        lambda n: "same",
        lambda n: f"label {n}",
        lambda n: ["good", "bad " * 20][n % 2],
        lambda n: "abcdefghijkl"[n % 12],
    ],
)
def test_init_takes_few_short_labels_for_classes_alone(tiny_model: Path, tmp_path: Path, label: Any) -> None:
    """Others are answers, which a language model writes."""
    records = written(tmp_path / "train.jsonl", [{"text": f"film {n}", "label": label(n)} for n in range(40)])
    recipe = tmp_path / "r.yaml"
    found = CliRunner().invoke(toolkit, ["init", str(recipe), "--model", str(tiny_model), "--train", str(records)])
    assert found.exit_code == 0 and "classification" not in found.output, found.output
    assert graftkit.plan(recipe).bound.objective.use == "sft"
