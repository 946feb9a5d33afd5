"""A tokenizer may have added tokens that the model has no row for, as long as no row of the data holds one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
from graftkit.errors import DataError
from graftkit.flow.answering.reload import reload
from graftkit.testing import tiny_model_folder
from safetensors.torch import load_file
from transformers import AutoTokenizer

ROWS = 259
"""Rows of the model's embedding: <image> is the special token 259, <box> the added token 260."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_model_folder(tmp_path_factory.mktemp("model"), vocab_size=ROWS)
    spec = json.loads((folder / "tokenizer.json").read_bytes())
    for id, (text, special) in enumerate((("<image>", True), ("<box>", False)), start=ROWS):
        spec["added_tokens"].append({**spec["added_tokens"][0], "id": id, "content": text, "special": special})
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    return folder


@pytest.fixture
def recipe(model: Path, tmp_path: Path) -> Any:
    def make(*texts: str, **sections: Any) -> dict[str, Any]:
        lines = [{"text": f"the number {n} and the number {n + 1}, said the teacher"} for n in range(30)]
        lines += [{"text": text} for text in texts]
        (tmp_path / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return {
            "model": str(model),
            "data": {"train": str(tmp_path / "records.jsonl"), "holdout": 0.1, "max_length": 64},
            "adapter": {"use": "lora", "rank": 4},
            "training": {"steps": 3, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
            **sections,
        }

    return make


def test_a_run_says_which_tokens_have_no_row(recipe: Any, tmp_path: Path) -> None:
    result = graftkit.run(recipe("an <image> is text"), out=tmp_path / "run")
    notices = " ".join(str(notice) for notice in result.manifest["notices"])
    assert "259 rows, none for 2 added tokens: '<image>', '<box>'" in notices
    with pytest.raises(DataError, match="the prompt: it holds the token '<box>'"):
        list(reload(str(result.folder)).stream("a <box>", plain=True))


def test_a_row_that_holds_one_is_refused_with_its_place(recipe: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"records.jsonl:31: it holds the token '<box>' of the id 260.*259 rows"):
        graftkit.run(recipe("a <box> here"), out=tmp_path / "run")


def test_a_conversation_and_a_long_text_are_refused_too(recipe: Any, tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "a <box>"}, {"role": "assistant", "content": "yes"}]
    (tmp_path / "chat.jsonl").write_text(json.dumps({"messages": turns}) + "\n")
    (tmp_path / "long.txt").write_text("a long text\n" * 200_000 + "<box>")
    for name in ("chat.jsonl", "long.txt"):
        wanted = recipe()
        wanted["data"]["train"] = [wanted["data"]["train"], str(tmp_path / name)]
        with pytest.raises(DataError, match=rf"{name}.* it holds the token '<box>'"):
            graftkit.run(wanted, out=tmp_path / name.replace(".", "-"))


def test_a_role_without_a_row_is_refused_where_it_would_be_used(model: Path, recipe: Any, tmp_path: Path) -> None:
    config = model / "tokenizer_config.json"
    before = config.read_text()
    try:
        config.write_text(json.dumps({**json.loads(before), "pad_token": "<image>"}))
        assert graftkit.run(recipe(), out=tmp_path / "pad").manifest["status"] == "finished", "no row is padded"
        config.write_text(json.dumps({**json.loads(before), "eos_token": "<image>"}))
        with pytest.raises(DataError, match="'<image>', the eos token, of the id 259"):
            graftkit.run(recipe(), out=tmp_path / "eos")
    finally:
        config.write_text(before)


def test_an_extension_gives_them_rows_and_every_id_has_its_own(recipe: Any, tmp_path: Path) -> None:
    wanted = recipe("a <box> here", tokenizer={"extend": {"tokens": 5}}, export=["peft", "merged", "extended-base"])
    result = graftkit.run(wanted, out=tmp_path / "run")
    change = json.loads((result.folder / "vocabulary.json").read_bytes())
    assert change["ids"] == list(range(ROWS, ROWS + 7)) and change["size"] == ROWS + 7
    assert [token["id"] for token in change["tokens"]] == list(range(ROWS + 2, ROWS + 7))
    assert {proof["proof"]["status"] for proof in result.manifest["exports"].values()} == {"proved"}
    merged = result.exports["merged"]
    assert len(AutoTokenizer.from_pretrained(merged)) == ROWS + 7
    embedding = load_file(merged / "model.safetensors")["model.embed_tokens.weight"]
    assert embedding.shape[0] == ROWS + 7 and torch.all(embedding.abs().sum(1) > 0)


def test_another_tokenizer_takes_no_row_that_there_is_not(recipe: Any, tmp_path: Path) -> None:
    trained = recipe(tokenizer={"train": {"use": "byte-level", "vocab_size": 290}}, export=["merged"])
    facts = graftkit.run(trained, out=tmp_path / "trained").manifest
    assert facts["exports"]["merged"]["proof"]["status"] == "proved"
    assert facts["tokenizer"]["new_rows"] == 290 - ROWS
    earlier = graftkit.run(recipe(tokenizer={"extend": {"tokens": 5}}), out=tmp_path / "earlier").folder
    again = graftkit.run(recipe(tokenizer={"replace": str(earlier / "tokenizer")}), out=tmp_path / "again").manifest
    assert (again["tokenizer"]["change"], again["tokenizer"]["new_rows"]) == ("extended", 7)
