"""Runs that learn a tag of each word: what they learn, keep, export and refuse."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from click.testing import CliRunner
from encoder_models import encoder_folder, encoder_recipe
from graftkit.cli.generate import command as generate
from graftkit.cli.init import command as init
from graftkit.cli.preview import command as preview
from graftkit.errors import DataError, FolderError, ModelError, RecipeError
from graftkit.flow.answering.grouped_tags import grouped
from graftkit.flow.answering.reload import AdapterBase, reload, reload_any
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.recipe.load import load_recipe
from graftkit.store.token_store import TARGET, TokenStore
from graftkit.testing import tiny_model_folder
from made_records import tagged_texts, written

RECORDS = tagged_texts(120)
ASKED = ["the film was bob kim and ada", "ada, ada the long film"]

recipe_of = partial(encoder_recipe, objective="token-classification", step={"tokens_per_step": 512})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tags")


@pytest.fixture(scope="module")
def bert(folder: Path) -> Path:
    return encoder_folder(folder / "bert", "bert")


@pytest.fixture(scope="module")
def result(bert: Path, folder: Path) -> Any:
    """Returns a run of an encoder, with both exports."""
    records = written(folder / "records.jsonl", RECORDS)
    return graftkit.run(recipe_of(bert, records, ["peft", "merged"]), out=folder / "run")


def test_an_encoder_learns_tags_and_its_exports_are_proved(result: Any, folder: Path) -> None:
    before, after = result.before, result.after
    assert after.holdout_loss < before.holdout_loss / 4 and after.bits_per_byte is None
    assert before.metrics["f1"] < 0.5 and min(after.metrics.values()) == 1.0
    assert set(after.metrics) == {"accuracy", "precision", "recall", "f1"}
    assert result.manifest["head"] == {"kind": "token", "labels": ["B-PER", "I-PER", "O"], "pad": 0}
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    assert result.manifest["sequences"]["packed"]
    config = json.loads((result.exports["peft"] / "adapter_config.json").read_text())
    assert config["task_type"] == "TOKEN_CLS" and config["modules_to_save"] == ["classifier"]
    merged = json.loads((result.exports["merged"] / "config.json").read_text())
    assert merged["architectures"] == ["BertForTokenClassification"]
    assert merged["id2label"] == {"0": "B-PER", "1": "I-PER", "2": "O"} and merged["label2id"]["O"] == 2
    store = TokenStore.load(result.folder / "tokens" / "train.safetensors")
    words = [len(record["tokens"]) for record in RECORDS]
    assert 0 < store.loss_tokens.sum() < sum(words) and TARGET in store.by_token


def test_exports_say_what_the_pipeline_of_transformers_says(
    result: Any, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import pipeline

    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # or else the pipeline says so for good
    tagger = pipeline("token-classification", str(result.exports["merged"]), aggregation_strategy="first")
    expected = tagger(ASKED)
    for place in (result.folder, *result.exports.values()):
        with pytest.raises((FolderError, ModelError), match="scores each token.*writes? .*answers"):
            reload(str(place))
        model = reload_any(str(place))
        assert isinstance(model, HeadModel) and model.labels == ["B-PER", "I-PER", "O"]
        for text, entities in zip(ASKED, expected, strict=True):
            found = model.judge(text).facts["entities"]
            assert [(one["label"], one["start"], one["end"]) for one in found] == [
                (one["entity_group"], one["start"], one["end"]) for one in entities
            ]
            assert [one["score"] for one in found] == pytest.approx([float(one["score"]) for one in entities], abs=1e-4)
    assert [one["word"] for one in model.judge(ASKED[0]).facts["entities"]][:1] == ["bob kim"]
    card = (result.exports["peft"] / "README.md").read_text()
    assert 'pipeline_tag: "token-classification"' in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)
    assert code is not None
    printed = io.StringIO()
    with contextlib.chdir(result.exports["peft"]), contextlib.redirect_stdout(printed):
        asked = code[1].replace(f"./{bert.name}", str(bert)).replace("Ada Lovelace lives in London.", ASKED[0])
        exec(compile(asked, "README.md", "exec"), {})
    assert "PER" in printed.getvalue()


def test_generate_says_the_entities_of_a_text(result: Any) -> None:
    said = CliRunner().invoke(generate, [str(result.folder), ASKED[0]])
    assert said.exit_code == 0, said.output
    assert [line.rpartition(" ")[0] for line in said.stdout.splitlines() if line][:1] == ["bob kim: PER"]
    told = CliRunner().invoke(generate, [str(result.folder), ASKED[0], "--json"])
    [line] = told.stdout.splitlines()
    found = json.loads(line)
    assert found["prompt"] == ASKED[0] and found["entities"][0]["start"] == ASKED[0].index("bob")
    measured = graftkit.evaluate(str(result.exports["merged"]), records=str(result.folder.parent / "records.jsonl"))
    [of_export] = measured
    assert of_export.measured.metrics["f1"] > 0.9 and of_export.loss_tokens == sum(
        len(row["tokens"]) for row in RECORDS
    )


def test_a_decoder_learns_parts_of_speech(folder: Path) -> None:
    """Tags without B- and I- have an F1 of each tag's own; a decoder reads the words before alone."""
    model = tiny_model_folder(folder / "qwen2", model_type="qwen2", architectures=["Qwen2ForCausalLM"])
    nouns = {"film", "ada", "bob", "kim"}
    tagged = [
        {**record, "tags": ["NOUN" if word in nouns else "OTHER" for word in record["tokens"]]} for record in RECORDS
    ]
    records = written(folder / "speech.jsonl", tagged)
    done = graftkit.run(recipe_of(model, records, ["merged"], training={"steps": 30}), out=folder / "decoder")
    assert done.after is not None and set(done.after.metrics) == {"accuracy", "macro_f1"}
    assert done.before is not None and done.after.holdout_loss < done.before.holdout_loss
    merged = json.loads((done.exports["merged"] / "config.json").read_text())
    assert merged["architectures"] == ["Qwen2ForTokenClassification"]
    with pytest.raises(RecipeError, match="the objective token-classification trains a model with another head"):
        graftkit.run(recipe_of(model, records, ["gguf"]), out=folder / "gguf")
    again = recipe_of(Path(done.exports["merged"]), records)
    planned: Any = graftkit.plan(again)
    assert planned.head.labels == ["NOUN", "OTHER"]
    texts = written(folder / "labels.jsonl", [{"text": f"a {n}", "label": "xy"[n % 2]} for n in range(12)])
    with pytest.raises(ModelError, match=r"the model scores each token \(Qwen2ForTokenClassification\), and the obj"):
        graftkit.plan(recipe_of(Path(done.exports["merged"]), texts, objective="classification"))


@pytest.mark.parametrize("kind", ["bert", "roberta", "llama"])
def test_a_pipeline_that_takes_other_words_is_told(kind: str, tmp_path: Path) -> None:
    """It looks for a mark of the tokens within words, and else for spaces."""
    from transformers import AutoTokenizer

    model = tiny_model_folder(tmp_path / kind) if kind == "llama" else encoder_folder(tmp_path / kind, kind)
    records = written(tmp_path / "records.jsonl", RECORDS)
    told = [text for text in graftkit.plan(recipe_of(model, records, ["merged"])).notices if "two spaces" in text]
    theirs = AutoTokenizer.from_pretrained(model, local_files_only=True)
    by_words = getattr(theirs.backend_tokenizer.model, "continuing_subword_prefix", None)
    assert len(told) == (not by_words) and bool(by_words) == (kind == "bert")
    assert not any("two spaces" in text for text in graftkit.plan(recipe_of(model, records)).notices)


def test_a_tag_that_every_text_has_is_learnt(bert: Path, tmp_path: Path) -> None:
    records = written(tmp_path / "records.jsonl", [record for record in RECORDS if "O" in record["tags"]])
    notices = graftkit.plan(recipe_of(bert, records)).notices
    assert not any("nothing is learnt" in notice or "pipeline" in notice for notice in notices)
    ends = [{**record, "tags": [tag.replace("I-", "L-") for tag in record["tags"]]} for record in RECORDS]
    [told] = [text for text in graftkit.plan(recipe_of(bert, written(records, ends))).notices if "pipeline" in text]
    assert told.startswith("tags begin with L-, which `toolkit generate` reads")


def test_init_and_preview_know_words_with_tags(bert: Path, folder: Path, tmp_path: Path) -> None:
    records, recipe = written(folder / "records.jsonl", RECORDS), tmp_path / "mine.yaml"
    done = CliRunner().invoke(init, [str(recipe), "--model", str(bert), "--train", str(records)])
    assert done.exit_code == 0, done.output
    assert load_recipe(recipe).recipe.objective.use == "token-classification"
    table = tmp_path / "table.csv"
    cells = [json.dumps(record["tokens"]).replace('"', '""') for record in RECORDS]
    rows = [f'"{cell}","{record["tags"]}"' for cell, record in zip(cells, RECORDS, strict=True)]
    table.write_text("\n".join(["tokens,tags", *rows]))
    of_table = tmp_path / "table.yaml"
    done = CliRunner().invoke(init, [str(of_table), "--model", str(bert), "--train", str(table)])
    assert done.exit_code == 0 and "tokens holds lists written as text" in done.output, done.output
    loaded = load_recipe(of_table).recipe
    assert loaded.objective.use == "token-classification" and loaded.data.train[0].reader is not None
    alone = written(tmp_path / "alone.jsonl", [{**record, "tags": ["O"] * len(record["tags"])} for record in RECORDS])
    of_one = tmp_path / "one.yaml"
    done = CliRunner().invoke(init, [str(of_one), "--model", str(bert), "--train", str(alone)])
    assert done.exit_code == 0 and load_recipe(of_one).recipe.objective.use != "token-classification", done.output
    shown = CliRunner().invoke(preview, [str(recipe), "--records", "1"])
    assert shown.exit_code == 0, shown.output
    tags = [tag for record in RECORDS for tag in record["tags"]]
    assert any(f"/{tag}]" in shown.output for tag in tags)


def test_an_adapter_that_peft_wrote_is_asked_exported_and_trained_on(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline

    base = AutoModelForTokenClassification.from_pretrained(str(bert), num_labels=3)
    config = LoraConfig(r=4, task_type="TOKEN_CLS", target_modules=["query"], modules_to_save=["classifier"])
    theirs = get_peft_model(base, config)
    theirs.save_pretrained(str(tmp_path / "peft"))
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")  # or else the pipeline says so for good
    tokenizer = AutoTokenizer.from_pretrained(str(bert))
    expected = pipeline("token-classification", model=theirs, tokenizer=tokenizer)(ASKED[0])
    model = reload_any(str(tmp_path / "peft"), on=AdapterBase(str(bert)))
    assert isinstance(model, HeadModel) and model.labels == ["LABEL_0", "LABEL_1", "LABEL_2"]
    found = model.judge(ASKED[0]).facts["entities"]
    assert found[0]["label"] == expected[0]["entity"]
    merged = graftkit.export(tmp_path / "peft", "merged", base=bert, out=tmp_path / "out").folder
    assert json.loads((merged / "graftkit.json").read_text())["proof"]["status"] == "proved"
    records = written(tmp_path / "records.jsonl", RECORDS)
    recipe = recipe_of(bert, records, adapter={"from": str(tmp_path / "peft")}, training={"steps": 2})
    assert graftkit.run(recipe, out=tmp_path / "run").manifest["head"]["labels"] == ["B-PER", "I-PER", "O"]


@pytest.mark.parametrize(
    "text,tokens,tags,entities",
    [
        ("Ada met Bob.", "Ada| met| B|ob|.", "B-P O B-P O O", ["Ada P", "Bob P"]),  # the rest of a word has its tag
        ("in New York  ", "in| New| York| | ", "O B-L I-L I-L I-L", ["New York L"]),  # blanks are of no word
        ("Ada Bob", "Ada| Bob", "I-P B-P", ["Ada P", "Bob P"]),
        ("Ada Bob", "Ada| Bob", "B-P I-L", ["Ada P", "Bob L"]),
        ("東京大学 x", "東|京|大|学| x", "B-L I-L O B-G O", ["東京 L", "学 G"]),  # a script without spaces
        (
            "我爱iPhone手机",
            "我|爱|iPhone|手|机",
            "O O B-X O O",
            ["iPhone X"],
        ),  # what follows such a script begins a word
        ("दिल्ली x", "द|ि|ल्|ली| x", "B-L O O O O", ["दिल्ली L"]),  # vowel signs are of a word
        ("run fast now", "run| fast| now", "VERB ADV ADV", ["run VERB", "fast now ADV"]),
        ("Ada Kim", "Ada| Kim", "B-P E-P", ["Ada Kim P"]),
        ("Ada Kim Bob Li", "Ada| Kim| Bob| Li", "B-P L-P U-P U-L", ["Ada Kim P", "Bob P", "Li L"]),  # BILOU
        ("Ada Kim", "Ada| Kim", "L-P VERB", ["Ada L-P", "Kim VERB"]),  # no such prefixes
        ("a b", "a| |b", "O B-P O", ["b P"]),  # the space before a word is its first token, in training, too
        ("a b", "a| b", "O O", []),
        (" \n", " |\n", "O B-P", []),
        (" \n", " |\n", "B-P I-P", []),  # nothing but white space
    ],
)
def test_tokens_with_tags_are_grouped_by_words(text: str, tokens: str, tags: str, entities: list[str]) -> None:
    ends = list(accumulate(map(len, tokens.split("|"))))
    labels = sorted({*tags.split()})
    shares = torch.eye(len(labels))[[labels.index(tag) for tag in tags.split()]]
    found = grouped(text, list(zip([0, *ends], ends, strict=False)), shares, labels)
    assert [f"{one.word} {one.label}" for one in found] == entities
    assert all(text[one.start : one.end] == one.word and one.score == 1 for one in found)


@pytest.mark.parametrize(
    "records,objective,told",
    [
        ([{"tokens": ["a", "b"], "tags": ["O", "O"]}] * 3, "token-classification", "every word has the tag 'O'"),
        (RECORDS[:9], {"use": "token-classification", "labels": ["O", "B-PER"]}, "the label 'I-PER', which `labels`"),
        (
            RECORDS[:9],
            "classification",
            "the record has a text and tags of its words, and the objective classification",
        ),
        ([{"text": "a"}] * 9, "token-classification", 'learns from words with tags: {"tokens"'),
    ],
)
def test_what_is_no_tag_to_learn_is_refused(
    bert: Path, tmp_path: Path, records: Sequence[Mapping[str, Any]], objective: Any, told: str
) -> None:
    path = written(tmp_path / "records.jsonl", records)
    with pytest.raises((DataError, RecipeError), match=re.escape(told)):
        graftkit.plan(recipe_of(bert, path, objective=objective, data={"holdout": 0.0}))
    [notice] = [
        line
        for line in graftkit.plan(recipe_of(bert, path, objective="masked-lm", data={"holdout": 0.0})).notices
        if "beside its text" in line or "tags" not in json.dumps(records)
    ][:1] or [""]
    assert "token-classification does" in notice or "tags" not in json.dumps(records)


def test_a_tag_that_every_record_has_is_learnt_where_other_words_have_another(bert: Path, tmp_path: Path) -> None:
    """Nearly every sentence has words that are no entity."""
    records = written(tmp_path / "records.jsonl", [record for record in RECORDS if {"O", "B-PER"} <= {*record["tags"]}])
    assert not any("nothing is learnt" in notice for notice in graftkit.plan(recipe_of(bert, records)).notices)
    outside = written(tmp_path / "outside.jsonl", [{"tokens": ["the", "film"], "tags": ["O", "O"]}] * 9)
    objective = {"use": "token-classification", "labels": ["O", "B-PER", "I-PER"]}
    told = graftkit.plan(recipe_of(bert, outside, objective=objective, data={"holdout": str(records)})).notices
    assert "every word of training records has the tag 'O': nothing is learnt of it" in told
