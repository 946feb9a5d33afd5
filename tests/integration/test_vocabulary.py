"""A recipe that changes the vocabulary leaves one consistent artifact, which peft and transformers load."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from architectures import settings
from graftkit.errors import FolderError, ModelError, PluginCallError, RecipeError
from graftkit.flow.answering.reload import reload
from graftkit.flow.preparation.tokenizer import fewer_than_asked, make_vocabulary
from graftkit.store.file_hashes import sha256_of
from graftkit.testing import tiny_model_folder
from graftkit_tokenizers.huggingface import HuggingFaceBackend
from safetensors.torch import load_file
from stopped_runs import run_until
from transformers import AutoModelForCausalLM, AutoTokenizer

EXPORTS = ["peft", "merged", "extended-base"]
IDS = 259
"""Ids of the tiny tokenizer; the tiny model's embedding has 320 rows, so 61 are spare."""


@pytest.fixture(scope="module")
def untied_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("untied"), tie_word_embeddings=False)


@pytest.fixture(scope="module")
def text_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences with words that come again and again."""
    path = tmp_path_factory.mktemp("rows") / "records.jsonl"
    texts = [f"the number {n} and the number {n + 1} make {2 * n + 1}, said the teacher" for n in range(60)]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return path


@pytest.fixture(scope="module")
def make(text_records: Path, tiny_model: Path) -> Any:
    def make(tokenizer: dict[str, Any], **sections: Any) -> dict[str, Any]:
        return {
            "model": str(tiny_model),
            "tokenizer": tokenizer,
            "data": {"train": str(text_records), "holdout": 0.1, "max_length": 64},
            "adapter": {"use": "lora", "rank": 4},
            "training": {"steps": 6, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
            **sections,
        }

    return make


@pytest.fixture(scope="module", params=["tied", "untied"])
def extended(request: Any, make: Any, untied_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run that adds more tokens than there are spare rows, on the tied model in float and the untied one in NF4."""
    sections: dict[str, Any] = {"export": EXPORTS}
    if request.param == "untied":
        sections |= {"model": str(untied_model), "quantizer": "nf4"}
    recipe = make({"extend": {"tokens": 75}, "embedding_warmup_steps": 2, "embedding_learning_rate": 3e-2}, **sections)
    return request.param, graftkit.run(recipe, out=tmp_path_factory.mktemp(request.param) / "run")


def test_new_rows_of_a_scaled_embedding_are_proved_in_every_export(make: Any, tmp_path: Path) -> None:
    """Gemma multiplies what it looks up: the exports hold rows that are not multiplied, as its own matrix does."""
    model = tiny_model_folder(tmp_path / "model", **{**settings("gemma3_text"), "pad_token_id": 256})
    recipe = make({"extend": {"tokens": 75}}, export=EXPORTS, model=str(model))
    result = graftkit.run(recipe, out=tmp_path / "run")
    assert {facts["proof"]["status"] for facts in result.manifest["exports"].values()} == {"proved"}
    sources = [result.folder, *result.exports.values()]
    assert len({"".join(reload(str(s)).stream("the num", plain=True, max_new_tokens=6)) for s in sources}) == 1


def test_a_vocabulary_that_can_not_be_changed_is_refused_before_a_row_is_encoded(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftkit.model.grow.row_scale", lambda module, dtype: None)
    with pytest.raises(ModelError, match="the vocabulary of this architecture can't be changed"):
        graftkit.run(make({"extend": {"tokens": 75}}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def trained_logits(result: graftkit.RunResult, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return reload(str(result.folder)).network(input_ids=ids).logits  # type: ignore[no-any-return]


def test_every_export_is_proved_and_answers_alike(extended: Any) -> None:
    _, result = extended
    assert {name: facts["proof"]["status"] for name, facts in result.manifest["exports"].items()} == dict.fromkeys(
        EXPORTS, "proved"
    )
    sources = [result.folder, *result.exports.values()]
    answers = {"".join(reload(str(source)).stream("the num", plain=True, max_new_tokens=6)) for source in sources}
    assert len(answers) == 1


def test_plain_peft_loads_the_new_rows_after_the_documented_resize(extended: Any, tiny_model: Path) -> None:
    from peft import PeftModel

    which, result = extended
    if which != "tied":
        pytest.skip("the untied one was trained on NF4: the run itself proves it on that")
    tokenizer = AutoTokenizer.from_pretrained(result.exports["peft"])
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    model.resize_token_embeddings(max(len(tokenizer), model.get_input_embeddings().num_embeddings))
    ids = torch.tensor([tokenizer("the teacher said the number 7")["input_ids"]])
    assert int(ids.max()) >= IDS, "no new token in it"
    with torch.no_grad():
        logits = PeftModel.from_pretrained(model, result.exports["peft"])(input_ids=ids).logits
    assert (logits - trained_logits(result, ids)).abs().max() < 1e-4


def test_the_adapter_holds_the_new_rows_alone(extended: Any) -> None:
    which, result = extended
    tensors = load_file(result.exports["peft"] / "adapter_model.safetensors")
    new = {name: tensor.shape[0] for name, tensor in tensors.items() if "lora" not in name}
    rows = {"base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta": 75}
    if which == "untied":
        rows["base_model.model.lm_head.token_adapter.trainable_tokens_delta"] = 75
    assert new == rows


def test_old_rows_stay_as_they_were_and_tied_stay_tied(extended: Any, tiny_model: Path, untied_model: Path) -> None:
    which, result = extended
    base = load_file((tiny_model if which == "tied" else untied_model) / "model.safetensors")
    merged = load_file(result.exports["merged"] / "model.safetensors")
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert (name in merged) == (name in base)
        if name in base:
            assert merged[name].shape[0] == IDS + 75
            assert torch.equal(merged[name][:IDS], base[name][:IDS])


def test_bits_per_byte_are_measured_with_either_vocabulary(extended: Any) -> None:
    _, result = extended
    assert set(result.metrics) == {"base", "before", "after"}
    assert result.metrics["after"]["bits_per_byte"] < result.metrics["before"]["bits_per_byte"]
    assert "base model" in (result.folder / "report.html").read_text()


def test_every_artifact_names_the_tokenizer(extended: Any) -> None:
    _, result = extended
    fingerprint = result.manifest["tokenizer"]["fingerprint"]
    for name in ("adapter/adapter.json", "vocabulary.json", *(f"exports/{export}/graftkit.json" for export in EXPORTS)):
        assert fingerprint in (result.folder / name).read_text(), name
    for name in ("adapter/adapter.safetensors", "probes.safetensors", "tokens/train.safetensors"):
        assert fingerprint.encode() in (result.folder / name).read_bytes(), name


@pytest.mark.parametrize("place", ["run", "peft"])
def test_an_adapter_with_another_tokenizer_is_refused_naming_both(extended: Any, tmp_path: Path, place: str) -> None:
    _, result = extended
    source = result.folder if place == "run" else result.exports["peft"]
    copy = shutil.copytree(source, tmp_path / "copy")
    file = copy / "tokenizer" / "tokenizer.json" if place == "run" else copy / "tokenizer.json"
    spec = json.loads(file.read_bytes())
    spec["model"]["merges"][-2:] = reversed(spec["model"]["merges"][-2:])
    file.write_text(json.dumps(spec))
    with pytest.raises(FolderError, match=r"the file (tokenizer/)?tokenizer\.json is changed"):
        reload(str(copy))
    listed = copy / ("manifest.json" if place == "run" else "graftkit.json")
    manifest = json.loads(listed.read_text())
    files = manifest["artifacts" if place == "run" else "files"]
    files[file.relative_to(copy).as_posix()] = {"bytes": file.stat().st_size, "sha256": sha256_of(file)}
    listed.write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="trained with the tokenizer") as caught:
        reload(str(copy))
    assert result.manifest["tokenizer"]["fingerprint"][:12] in str(caught.value)


@pytest.mark.parametrize("place", ["run", "peft"])
def test_an_adapter_whose_rows_would_be_others_is_refused(extended: Any, tmp_path: Path, place: str) -> None:
    _, result = extended
    source = result.folder if place == "run" else result.exports["peft"]
    file = shutil.copytree(source, tmp_path / "copy") / "vocabulary.json"
    file.write_text(file.read_text().replace(str(IDS), str(IDS - 1), 1))
    with pytest.raises(FolderError, match=r"vocabulary\.json is changed: it is not the file that was written"):
        reload(str(file.parent))


def test_spare_rows_are_used_before_the_model_grows(make: Any, tmp_path: Path) -> None:
    result = graftkit.run(make({"extend": {"tokens": 10}}), out=tmp_path / "run")
    assert result.manifest["tokenizer"]["rows"] == 320
    assert result.manifest["tokenizer"]["vocab_size"] == IDS + 10


def test_new_rows_come_first_when_asked_to(make: Any, tmp_path: Path) -> None:
    recipe = make({"extend": {"tokens": 10}, "embedding_warmup_steps": 5})
    adapter = stopped_after(recipe, tmp_path / "run", 5)
    assert all(not tensor.any() for name, tensor in adapter.items() if "lora_B" in name)
    after = load_file(graftkit.run(recipe, out=tmp_path / "run", resume=True).folder / "adapter/adapter.safetensors")
    assert all(tensor.any() for name, tensor in after.items() if "lora_B" in name)


def stopped_after(recipe: dict[str, Any], out: Path, step: int) -> dict[str, torch.Tensor]:
    """Stops a run after a step and returns what its adapter was then."""
    run_until(step, recipe, out)
    tensors: dict[str, torch.Tensor] = load_file(out / "adapter" / "adapter.safetensors")
    return tensors


@pytest.mark.parametrize("step", [1, 2, 4])
def test_resuming_with_new_rows_is_as_never_stopping(make: Any, tmp_path: Path, step: int) -> None:
    recipe = make({"extend": {"tokens": 10}, "embedding_warmup_steps": 2, "embedding_learning_rate": 2e-2})
    never = graftkit.run(recipe, out=tmp_path / "never")
    stopped_after(recipe, tmp_path / "run", step)
    resumed = graftkit.run(recipe, out=tmp_path / "run", resume=True)
    name = "adapter/adapter.safetensors"
    assert resumed.manifest["artifacts"][name] == never.manifest["artifacts"][name]
    assert resumed.metrics == never.metrics


def test_a_trained_tokenizer_takes_the_bases_place(make: Any, tmp_path: Path) -> None:
    train = {"use": "byte-level", "vocab_size": 330}
    result = graftkit.run(make({"train": train}, export=["merged", "extended-base"]), out=tmp_path / "run")
    facts = result.manifest["tokenizer"]
    assert (facts["change"], facts["vocab_size"], facts["rows"]) == ("trained", 330, 330)
    assert facts["new_rows"] == 330 - IDS, (
        "bytes and special tokens keep the rows that they had, wherever their ids went"
    )
    assert {proof["proof"]["status"] for proof in result.manifest["exports"].values()} == {"proved"}
    config = json.loads((result.exports["merged"] / "config.json").read_bytes())
    tokenizer = AutoTokenizer.from_pretrained(result.exports["merged"])
    assert (config["vocab_size"], config["eos_token_id"]) == (330, tokenizer.eos_token_id)


def test_a_tokenizer_extended_before_replaces_the_bases_as_an_extension(
    make: Any, extended: Any, tmp_path: Path
) -> None:
    _, earlier = extended
    recipe = make({"replace": str(earlier.folder / "tokenizer")}, export=["peft"])
    result = graftkit.run(recipe, out=tmp_path / "run")
    facts = result.manifest["tokenizer"]
    assert (facts["change"], facts["new_rows"]) == ("extended", 75)
    assert facts["fingerprint"] == earlier.manifest["tokenizer"]["fingerprint"]
    assert result.manifest["exports"]["peft"]["proof"]["status"] == "proved"


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"extend": {"tokens": 75, "words": ["zzzz"]}}, ""),
        (
            {"extend": {"tokens": 5000, "words": ["zzzz"]}},
            r"tokenizer.extend.tokens asks for 5,000, and there are [1-9]\d\d?:",
        ),
        ({"train": {"use": "byte-level", "vocab_size": 300}}, ""),
        (
            {"train": {"use": "byte-level", "vocab_size": 9000}},
            r"tokenizer.train.vocab_size asks for 9,000, and there are \d+:",
        ),
    ],
)
def test_fewer_tokens_than_asked_for_are_told(make: Any, section: dict[str, Any], said: str) -> None:
    plan = graftkit.plan(make(section))
    assert plan.vocabulary is not None
    assert re.match(said or "$", fewer_than_asked(plan.vocabulary.section, make_vocabulary(plan)[1]))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "nothing said": ({}, "say one of extend, train and replace"),
    "two said": ({"extend": {"tokens": 3}, "replace": "x"}, "not extend and replace"),
    "no such initializer": ({"extend": {"tokens": 3}, "embedding_init": "meen"}, "mean"),
    "no such key": ({"extend": {"token": 3}}, "tokens"),
    "no step for the adapter": ({"extend": {"tokens": 3}, "embedding_warmup_steps": 6}, "leaves none"),
    "a corpus that is not there": ({"extend": {"tokens": 3, "corpus": "nowhere.txt"}}, "nowhere.txt"),
    "a tokenizer that is not there": ({"replace": "./nowhere"}, "nowhere"),
    "a family that trains none": ({"train": {"use": "huggingface", "vocab_size": 300}}, "can't train"),
    "nothing to add": ({"extend": {"tokens": 0}}, "^recipe.tokenizer: there is nothing to add"),
    "a word that is no token": ({"extend": {"tokens": 0, "words": ["é"]}}, "'é' .* a piece already"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_is_answered_in_words(make: Any, tmp_path: Path, case: str) -> None:
    section, words = WRONG[case]
    with pytest.raises(graftkit.GraftkitError, match=words) as caught:
        graftkit.run(make(section), out=tmp_path / "run")
    assert caught.value.exit_code == 2 and "/graftkit-" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_the_tokens_that_the_base_has_are_no_replacement(make: Any, tmp_path: Path) -> None:
    recipe = make({"replace": "x"})
    recipe["tokenizer"]["replace"] = recipe["model"]
    with pytest.raises(RecipeError, match="tokenizer.replace: it has the base model's tokens, each with the same id"):
        graftkit.run(recipe, out=tmp_path / "run")


def test_more_steps_of_rows_first_than_there_are_is_refused(make: Any, tmp_path: Path) -> None:
    training = {"epochs": 1, "tokens_per_step": 4096, "device": "cpu"}
    with pytest.raises(RecipeError, match="training has 1 step: none is left"):
        graftkit.run(
            make({"extend": {"tokens": 3}, "embedding_warmup_steps": 4}, training=training), out=tmp_path / "run"
        )
    assert (tmp_path / "run" / "tokens").is_dir(), "a refusal after rows were encoded keeps them"


class Odd:
    """A tokenizer, but for some of its members."""

    def __init__(self, tokenizer: Any, **members: Any) -> None:
        self._tokenizer, self._members = tokenizer, members

    def __getattr__(self, name: str) -> Any:
        return self._members[name] if name in self._members else getattr(self._tokenizer, name)


@pytest.mark.parametrize(
    ("odd", "message"),
    [
        ({"encode_batch": lambda texts: [[1] for _ in texts]}, "encode_batch.* gave other ids than encode"),
        ({"fingerprint": None}, "fingerprint.* gave None"),
        ({}, "fingerprint.* gave that of the base's tokenizer"),
    ],
)
def test_an_extended_tokenizer_is_tried_before_records_are_encoded(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, odd: Any, message: str
) -> None:
    own = HuggingFaceBackend.extend

    def extend(self: Any, tokenizer: Any, *others: Any) -> Any:
        plan = own(self, tokenizer, *others)
        return replace(plan, tokenizer=Odd(plan.tokenizer, **{"fingerprint": tokenizer.fingerprint, **odd}))

    monkeypatch.setattr(HuggingFaceBackend, "extend", extend)
    with pytest.raises(PluginCallError, match=message):
        graftkit.run(make({"extend": {"tokens": 10}}), out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("tokens/*"))
