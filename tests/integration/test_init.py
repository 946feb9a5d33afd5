"""`toolkit init` on records whose columns no format has: it writes what their names say, and that it is a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit.cli.init import command as init
from graftkit.errors import RequestError
from graftkit.recipe.load import load_recipe

HEADS = {
    "ticket,reply": ({"question": "ticket", "answer": "reply"}, "question-answer", "report"),
    "Subject,Description,Resolution": (
        {"question": "Description", "answer": "Resolution"},
        "question-answer",
        ["Subject"],
    ),
    "Instruction,Output": ({"instruction": "Instruction", "output": "Output"}, "alpaca", "report"),
    "body": ({"text": "body"}, "text", "report"),
    "question,last reply": ({"answer": "last reply"}, "question-answer", "report"),
}


def initialised(folder: Path, model: Path, head: str) -> tuple[Path, str]:
    """Runs `toolkit init` on forty records with such a head; returns the recipe's path and what was said."""
    row = ",".join(f"the {name} of it" for name in head.split(","))
    (folder / "records.csv").write_text("\n".join([head, *[f"{row} {number}" for number in range(40)]]))
    recipe = folder / "mine.yaml"
    done = CliRunner().invoke(init, [str(recipe), "--model", str(model), "--train", str(folder / "records.csv")])
    assert done.exit_code == 0, done.output
    return recipe, done.output


@pytest.mark.parametrize("head", HEADS)
def test_columns_of_other_names_are_guessed_and_the_recipe_says_so(tiny_model: Path, tmp_path: Path, head: str) -> None:
    recipe, said = initialised(tmp_path, tiny_model, head)
    columns, format, unused = HEADS[head]
    [files] = load_recipe(recipe).recipe.data.train
    assert files.format is not None and (files.format.use, files.columns, files.unused) == (format, columns, unused)
    warning = "guessed from the columns' names: change it where it is wrong"
    assert warning in recipe.read_text() and all(f"{ours} is {theirs}" in said for ours, theirs in columns.items())
    planned: Any = graftkit.plan(recipe)
    assert planned.corpus.mean > 5


def test_which_language_is_translated_is_guessed(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Norwegian's code is YAML's word for false, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.jsonl").write_text('{"translation": {"no": "Hei.", "en": "Hi."}}\n' * 3)
    done = CliRunner().invoke(init, ["--model", str(tiny_model), "--train", "a.jsonl"])
    assert done.exit_code == 0 and "en is translated into no\n" in done.output, done.output
    planned: Any = graftkit.plan(tmp_path / "recipe.yaml", overrides=["data.holdout=0"])
    [sample, *_] = planned.samples.train
    assert [message.content for message in sample.messages] == ["Hi.", "Hei."]


HEADED = "Kunde fragt;Antwort (Agent)\nWo?;Dort.\n;\nWann?;Um neun.\n"
"""A table as a spreadsheet writes it, with an empty row."""

UNUSABLE = {
    "missing.csv": ("missing.csv", b"", "no such file"),
    "a spreadsheet": ("tickets.xlsx", b"PK\x03\x04...", "this is a spreadsheet\nSave it from there as text in UTF-8"),
    "an old spreadsheet": ("tickets.xls", bytes.fromhex("d0cf11e0a1b11ae1"), "this is a spreadsheet"),
    "no record": ("tickets.csv", b"question,answer\n", "there is no record in it"),
    "JSON lines": ("tickets.csv", b'{"a": 1, "b": 2}\n', "reader: jsonl}. --train takes such a mapping, too"),
    "a list of JSON": ("tickets.csv", b'[{"a": 1, "b": 2}]\n', "reader: json}"),
    "columns that say nothing": ("tickets.csv", b"a,b,c\n1 x,2 y,3 z\n", "YOURS}}. --train takes such a mapping, too"),
    "no answer": ("tickets.csv", b"question,answer\na,b\nc,\n", "empty: skip}. --train takes such a mapping, too"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_records_that_are_named_and_of_no_use_are_refused_and_nothing_is_written(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    name, content, told = UNUSABLE[case]
    monkeypatch.chdir(tmp_path)
    if content:
        (tmp_path / name).write_bytes(content)
    done = CliRunner().invoke(init, ["--model", str(tiny_model), "--train", name])
    assert isinstance(done.exception, RequestError) and told in str(done.exception)
    assert not (tmp_path / "recipe.yaml").exists()


def test_records_may_be_named_as_the_recipe_names_them(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tickets.csv").write_text(HEADED)
    said = "path: tickets.csv, format: question-answer, columns: {question: Kunde fragt, answer: THEIRS}, empty: skip"
    wrong = CliRunner().invoke(init, ["--model", str(tiny_model), "--train", f"{{{said}}}"])
    assert "names 'THEIRS'" in str(wrong.exception) and "Kunde fragt (string), Antw" in str(wrong.exception)
    (tmp_path / "empty.csv").write_text("Kunde fragt;Antwort\nWo?;\n")
    wrong = CliRunner().invoke(
        init,
        ["--model", str(tiny_model), "--train", f"{{{said}}}".replace("tickets", "empty").replace("THEIRS", "Antwort")],
    )
    assert "empty.csv: all records are left out (empty: skip): there is nothing to learn from" in str(wrong.exception)
    wrong = CliRunner().invoke(init, ["--model", str(tiny_model), "--train", f"{{{said}, colums: {{}}}}"])
    assert "Did you mean 'columns'?" in str(wrong.exception)
    done = CliRunner().invoke(
        init, ["--model", str(tiny_model), "--train", f"{{{said}}}".replace("THEIRS", "Antwort (Agent)")]
    )
    assert done.exit_code == 0 and "2 records" in done.output
    [files] = load_recipe(tmp_path / "recipe.yaml").recipe.data.train
    assert (files.columns["answer"], files.empty) == ("Antwort (Agent)", "skip")
    planned: Any = graftkit.plan(tmp_path / "recipe.yaml")
    assert planned.corpus.mean > 5


@pytest.mark.parametrize(
    ("name", "content", "told", "columns"),
    [
        ("a.csv", "text,score\ngood,0.5\nbad,-1\n", "the score is a number written as text", {}),
        ("a.csv", "id,review,rating\n1,good,5\n2,bad,1\n", "text is review, score is rating", {"text", "score"}),
        ("a.csv", "sentence1,sentence2,similarity\na,b,.5\nc,d,1\n", "score is similarity, the score is", {"score"}),
        ("a.jsonl", '{"text": "a", "stars": 4}\n{"text": "b", "stars": 1}\n', "score is stars", {"score"}),
    ],
)
def test_numbers_beside_texts_are_learnt(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str, told: str, columns: Any
) -> None:
    """In CSV, too, where they are texts, and under other names; the recipe is one that plans."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(content)
    done = CliRunner().invoke(init, ["--model", str(tiny_model), "--train", name])
    assert done.exit_code == 0 and told in done.output and "objective: regression learns it" in done.output, done.output
    recipe = load_recipe(tmp_path / "recipe.yaml").recipe
    assert recipe.objective.use == "regression" and {*recipe.data.train[0].columns} == {*columns}
    assert "answers:" not in (tmp_path / "recipe.yaml").read_text()  # which a model with a head is refused
    planned: Any = graftkit.plan(tmp_path / "recipe.yaml", overrides=["data.holdout=0"])
    assert planned.head.labels == ["score"]


@pytest.mark.parametrize(
    "content",
    [
        "text,score\ngood,high\nbad,low\n",
        "text,label,score\ngood,a,1\nbad,b,2\n",
        "question,answer,rating\na,b,5\nc,d,1\n",
        "text,rating,score\na,1,5\nc,2,1\n",
    ],
)
def test_numbers_that_say_something_else_are_not(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text(content)
    done = CliRunner().invoke(init, ["--model", str(tiny_model), "--train", "a.csv"])
    assert done.exit_code == 0 and "regression" not in done.output, done.output
