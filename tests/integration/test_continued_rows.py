"""Adapters with trained rows of tokens are trained further: graftkit's own with new vocabularies, and peft's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import graftkit
import pytest
import torch
from adapted_models import adapter_of_peft
from continued_adapters import computed_at_start, computed_by, computed_by_peft
from graftkit.errors import DataError, FolderError, ModelError, RecipeError
from graftkit.store.file_hashes import sha256_of
from graftkit.testing import TINY_SHAPES, tiny_model_folder
from graftkit.training.dry_run import dry_run
from safetensors.torch import load_file
from stopped_runs import run_until
from transformers import AutoModelForCausalLM, AutoTokenizer

RecipeMaker = Callable[..., dict[str, Any]]

ROWS = 320
"""Rows of the tiny model's embedding; its tokenizer has 259 ids."""

IDS = torch.tensor([[257, 40, 7, 42, 99, 200, 7, 255, 12, 60, 61]])

STILL = {"steps": 2, "learning_rate": 1e-12}
STILL_ROWS = {"embedding_learning_rate": 1e-12}
"""With these, a training moves no number by more than 2e-12."""

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_tying", "ignore:.*tie_word_embeddings")


class Made(NamedTuple):
    """An adapter with trained rows.

    Attributes:
        base: The base model.
        folder: The adapter.
        ids: Token ids with some of those that have trained rows.
        rows: The rows of the embedding that it goes on.
    """

    base: Path
    folder: Path
    ids: torch.Tensor
    rows: int


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "adapter_model.safetensors")
    return found


def of_graftkit(shape: str, make_recipe: RecipeMaker, place: Path) -> Made:
    """An extension by more tokens than there are spare rows, as an export has it."""
    base = tiny_model_folder(place / "base", **{**TINY_SHAPES[shape], "vocab_size": 260})
    recipe = make_recipe(model=str(base), tokenizer={"extend": {"tokens": 8}}, export=["peft"])
    folder = place / "adapter"
    shutil.copytree(graftkit.run(recipe, out=place / "first").exports["peft"], folder)
    return Made(base, folder, torch.tensor([[257, 40, 260, 265, 99, 261, 259]]), 266)


def of_peft(shape: str, indices: Any, place: Path) -> Made:
    base = tiny_model_folder(place / "base", **TINY_SHAPES[shape])
    fields = {"target_modules": ["q_proj"], "trainable_token_indices": indices}
    return Made(base, adapter_of_peft(base, place / "adapter", moved=0.1, **fields), IDS, ROWS)


def with_tokens(shape: str, tokenizer: bool, place: Path) -> Made:
    """As peft's users add tokens: to tokenizer and base, of which the new rows alone are saved."""
    base, enlarged = tiny_model_folder(place / "base", **TINY_SHAPES[shape]), place / "enlarged"
    network, known = AutoModelForCausalLM.from_pretrained(base), AutoTokenizer.from_pretrained(base)
    known.add_tokens([f"<word {n}>" for n in range(63)])
    network.resize_token_embeddings(len(known), mean_resizing=False)
    network.save_pretrained(enlarged)
    ids = [320, 321]
    indices = ids if shape == "llama" else {"embed_tokens": ids, "lm_head": ids}
    fields = {"target_modules": ["q_proj"], "trainable_token_indices": indices}
    folder = adapter_of_peft(enlarged, place / "adapter", moved=0.1, **fields)
    if tokenizer:
        known.save_pretrained(folder)
    return Made(base, folder, torch.tensor([[257, 40, 320, 321, 99, 300]]), 322)


KINDS: dict[str, Callable[[RecipeMaker, Path], Made]] = {
    "a run's, tied": lambda make, place: of_graftkit("llama", make, place),
    "a run's, untied": lambda make, place: of_graftkit("llama-untied", make, place),
    "peft's, of tokens that were there": lambda _, place: of_peft("llama", [200, 7], place),
    "peft's, other ids of each matrix": lambda _, place: of_peft(
        "llama-untied", {"embed_tokens": [200, 7], "lm_head": [12, 7]}, place
    ),
    "peft's, of a tied output layer alone": lambda _, place: of_peft("llama", {"lm_head": [7, 200]}, place),
    "peft's, with tokens added": lambda _, place: with_tokens("llama", True, place),
    "peft's, with tokens added, untied": lambda _, place: with_tokens("llama-untied", True, place),
}


@pytest.mark.parametrize("kind", KINDS)
def test_training_starts_from_the_rows_as_peft_computes_them(
    kind: str, make_recipe: RecipeMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What came in comes out, where the rate is zero; exports are proved, and a run computes what it trained."""
    made = KINDS[kind](make_recipe, tmp_path)
    at_start = computed_at_start(monkeypatch, made.ids)
    apart = "output layer alone" in kind
    sections = {"tokenizer": STILL_ROWS, "training": {**make_recipe()["training"], **STILL}}
    recipe = make_recipe(model=str(made.base), adapter={"from": str(made.folder)}, **sections)
    done = graftkit.run(recipe | {"export": ["merged" if apart else "peft"]}, out=tmp_path / "run")
    expected = computed_by_peft(made.base, made.folder, made.ids, made.rows)
    torch.testing.assert_close(at_start[0], expected, rtol=0, atol=2e-5)
    for source in (done.folder, *done.exports.values()):
        torch.testing.assert_close(computed_by(source, made.ids), expected, rtol=0, atol=2e-5)
    assert {export["proof"]["status"] for export in done.manifest["exports"].values()} == {"proved"}
    assert done.manifest["tokenizer"]["new_rows"] == len({id for ids in indices_of(made.folder).values() for id in ids})
    if "other ids" in kind:  # each matrix has the rows of all of them then
        assert indices_of(done.exports["peft"]) == {"embed_tokens": [7, 12, 200], "lm_head": [7, 12, 200]}
    elif not apart:
        before, after = tensors_of(made.folder), tensors_of(done.exports["peft"])
        order = [sorted(ids).index(id) for ids in list(indices_of(made.folder).values())[:1] for id in ids]
        assert before.keys() == after.keys()
        for name, tensor in before.items():
            found = after[name][order] if "token_adapter" in name else after[name]
            torch.testing.assert_close(found, tensor, rtol=0, atol=1e-11)


def indices_of(folder: Path) -> dict[str, list[int]]:
    said = json.loads((folder / "adapter_config.json").read_bytes())["trainable_token_indices"]
    return said if isinstance(said, dict) else {"embed_tokens": said}


def test_a_run_goes_on_without_the_folder_and_trains_the_rows(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """The copy in the run has the tokenizer, too; the rate of the rows is that of new rows, where none is said."""
    made = with_tokens("llama", True, tmp_path)
    recipe = make_recipe(model=str(made.base), adapter={"from": str(made.folder)})
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps({"text": f"<word 61> {n} <word 62>"}) + "\n" for n in range(40)))
    recipe["data"] = {**recipe["data"], "train": str(records)}
    graftkit.run(recipe | {"tokenizer": {"embedding_learning_rate": 3e-4}}, out=tmp_path / "whole")
    run_until(3, recipe, tmp_path / "stopped")
    shutil.move(made.folder, tmp_path / "elsewhere")
    done = graftkit.run(recipe | {"export": ["peft"]}, out=tmp_path / "stopped", resume=True)
    whole, resumed = (load_file(tmp_path / name / "adapter" / "adapter.safetensors") for name in ("whole", "stopped"))
    assert whole.keys() == resumed.keys() and all(torch.equal(whole[name], resumed[name]) for name in whole)
    name = next(name for name in tensors_of(done.exports["peft"]) if "token_adapter" in name)
    assert (tensors_of(done.exports["peft"])[name] - tensors_of(tmp_path / "elsewhere")[name]).abs().amax(
        1
    ).min() > 1e-4
    expected = computed_by_peft(made.base, done.exports["peft"], made.ids, made.rows)
    torch.testing.assert_close(computed_by(done.folder, made.ids), expected, rtol=0, atol=2e-5)


def test_a_run_that_began_with_rows_is_the_beginning_of_another(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Its export is told by graftkit's manifest, whose tokenizer and vocabulary.json a stopped run has copies of."""
    made = of_graftkit("llama", make_recipe, tmp_path)
    recipe = make_recipe(model=str(made.base), adapter={"from": str(made.folder)}, export=["peft"])
    second = graftkit.run(recipe, out=tmp_path / "second")
    third = make_recipe(model=str(made.base), adapter={"from": str(second.exports["peft"])})
    first = graftkit.preview(third, records=1).examples[0]
    assert max(first.ids) >= 259
    moved = tmp_path / "moved"
    shutil.copytree(made.folder, moved)
    vocabulary, listing = moved / "vocabulary.json", moved / "graftkit.json"
    vocabulary.write_text(vocabulary.read_text().replace('"size": 266', '"size": 267'))
    known = json.loads(listing.read_bytes())
    known["files"]["vocabulary.json"]["sha256"] = sha256_of(vocabulary)
    listing.write_text(json.dumps(known))
    with pytest.raises(FolderError, match="it names other rows than those that the adapter has"):
        graftkit.plan(make_recipe(model=str(made.base), adapter={"from": str(moved)}))
    shutil.rmtree(made.folder)
    more = recipe | {"training": {**recipe["training"], "steps": 8}, "export": ["peft", "gguf"]}
    done = graftkit.run(more, out=tmp_path / "second", resume=True)
    assert {export["proof"]["status"] for export in done.manifest["exports"].values()} == {"proved"}


def test_a_plan_says_what_rows_are_trained_and_what_memory_they_take(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Each has a gradient and a moment of its size: 12 bytes a number."""
    found = {}
    for kind, indices in {"few": [7], "many": list(range(101))}.items():
        made = of_peft("llama", indices, tmp_path / kind)
        recipe = make_recipe(model=str(made.base), adapter={"from": str(made.folder)})
        planned = graftkit.plan(recipe, as_run=True)
        assert planned.checked is not None and planned.checked["new_rows"] == len(indices)
        assert f"the adapter's tokenizer (259 ids) and {len(indices)} trained rows" in str(planned.to_json())
        assert f", {len(indices)} rows of the embeddings trained" in planned.to_json()["checked"]["text"]
        assert any("trained on, at tokenizer.embedding_learning_rate, 3.0e-04" in note for note in planned.notices)
        asked = planned.ask_memory(planned.bound)  # type: ignore[misc]
        peak = next(peak for peak in dry_run(asked.dry).peaks if peak.stage == "training")
        found[kind] = {key: peak.parts.get(key, 0) for key in ("adapter", "gradients", "optimizer")}
    numbers = 100 * 64
    more = {key: found["many"][key] - found["few"][key] for key in found["few"]}
    assert more == {"adapter": 4 * numbers, "gradients": 4 * numbers, "optimizer": 4 * numbers}


def test_a_tokenizer_with_tokens_of_spare_rows_is_taken(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """They were trained on as the base model has them: the adapter has no rows of its own, and one token has none."""
    base = tiny_model_folder(tmp_path / "base")
    folder = adapter_of_peft(base, tmp_path / "adapter", target_modules=["q_proj"])
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([f"<call {n}>" for n in range(ROWS - 259 + 1)])
    tokenizer.save_pretrained(folder)
    records = tmp_path / "records.jsonl"
    records.write_text("".join(json.dumps({"text": f"<call 0> {n}"}) + "\n" for n in range(40)))
    recipe = make_recipe(model=str(base), adapter={"from": str(folder)}, export=["peft", "merged"])
    recipe["data"] = {"train": str(records), "max_length": 64}
    done = graftkit.run(recipe, out=tmp_path / "run")
    assert 259 in load_file(done.folder / "tokens" / "train.safetensors")["ids"]
    assert done.manifest["tokenizer"]["vocab_size"] == 321 and "new_rows" not in done.manifest["tokenizer"]
    assert "the adapter's tokenizer adds tokens, with rows that the base model has" in done.manifest["notices"]
    assert {export["proof"]["status"] for export in done.manifest["exports"].values()} == {"proved"}
    records.write_text(json.dumps({"text": "<call 61>"}) + "\n")
    with pytest.raises(DataError, match="none for it"):
        graftkit.run(recipe | {"data": {"train": str(records), "holdout": 0, "max_length": 64}}, out=tmp_path / "bad")


def other_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer.json"
    said = json.loads(path.read_bytes())
    vocabulary = said["model"]["vocab"]
    first, second = (text for text, id in vocabulary.items() if id in (40, 41))
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    path.write_text(json.dumps(said))


REFUSED: dict[str, tuple[bool, Callable[[Path], object], dict[str, Any], type[Exception], str]] = {
    "a second vocabulary": (
        True,
        lambda folder: None,
        {"tokenizer": {"extend": {"tokens": 4}}},
        RecipeError,
        "the recipe changes the vocabulary, and the adapter in .* brings one of its own, of 322 ids and 2 trained rows",
    ),
    "no tokenizer": (
        False,
        lambda folder: None,
        {},
        ModelError,
        "trained rows of tokens up to the id 321, and the base model's tokenizer has 259 ids",
    ),
    "a tokenizer that gives an id another meaning": (
        True,
        other_tokenizer,
        {},
        ModelError,
        "was trained with another tokenizer than the base model's: the id 40 is",
    ),
    "a head": (
        True,
        lambda folder: None,
        {"objective": "classification"},
        RecipeError,
        "the adapter has trained rows of .*embed_tokens, and the objective classification is learnt with the base",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_rows_can_t_be_trained_with_is_refused(what: str, make_recipe: RecipeMaker, tmp_path: Path) -> None:
    tokenizer, change, sections, error, message = REFUSED[what]
    made = with_tokens("llama", tokenizer, tmp_path)
    change(made.folder)
    with pytest.raises(error, match=message):
        graftkit.plan(make_recipe(model=str(made.base), adapter={"from": str(made.folder)}, **sections))


def test_rates_of_rows_that_are_not_there_are_refused(
    tiny_model: Path, make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    folder = adapter_of_peft(tiny_model, tmp_path / "adapter", target_modules=["q_proj"])
    with pytest.raises(RecipeError, match="has no rows of new tokens that could be trained so"):
        graftkit.plan(make_recipe(adapter={"from": str(folder)}, tokenizer=STILL_ROWS))


def test_rows_and_the_whole_of_a_matrix_are_refused(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """An export of such an adapter would leave the matrix out."""
    base = tiny_model_folder(tmp_path / "base", **TINY_SHAPES["llama-untied"])
    fields = {"trainable_token_indices": {"embed_tokens": [7]}, "modules_to_save": ["lm_head"]}
    folder = adapter_of_peft(base, tmp_path / "adapter", target_modules=["q_proj"], **fields)
    with pytest.raises(ModelError, match="lm_head"):
        graftkit.plan(make_recipe(model=str(base), adapter={"from": str(folder)}), as_run=True)
    with pytest.raises(ModelError, match="lm_head"):
        graftkit.export(folder, "merged", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("manifest", [True, False])
def test_another_chat_template_than_the_adapters_is_told(tiny_model: Path, tmp_path: Path, manifest: bool) -> None:
    """A recipe that names none has the base model's, whatever the adapter was trained with."""
    own = tmp_path / "own.jinja"
    own.write_text(
        "{% for m in messages %}[{{ m.role }}]{% generation %}{{ m.content }}{% endgeneration %}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant]{% endif %}"
    )
    turns = [{"role": "user", "content": "say it"}, {"role": "assistant", "content": "it"}]
    recipe: dict[str, Any] = {
        "model": str(tiny_model),
        "data": {"chat_template": str(own), "max_length": 128},
        "adapter": {"use": "lora", "rank": 2},
        "training": {"steps": 1, "tokens_per_step": 256, "learning_rate": 1e-3, "device": "cpu"},
        "export": ["peft"],
        "proof": "later",
    }
    rows = [{"messages": turns}] * 4
    folder = graftkit.run(recipe, out=tmp_path / "run", train=rows).exports["peft"]
    if not manifest:  # as peft and transformers leave it
        (folder / "graftkit.json").unlink()
    for data, told in ((recipe["data"], False), ({"max_length": 128}, True)):
        asked = {**recipe, "data": data, "adapter": {"from": str(folder)}}
        notices = graftkit.plan(asked, train=rows).notices
        assert any("trained with another chat template" in notice for notice in notices) == told
