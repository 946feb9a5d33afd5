"""`toolkit init` on records whose columns no format has: it writes what their names say, and that it is a guess."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graftkit
import pytest
from click.testing import CliRunner
from graftkit.cli.init import command as init
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


def test_columns_that_say_nothing_are_not_guessed(tiny_model: Path, tmp_path: Path) -> None:
    recipe, said = initialised(tmp_path, tiny_model, "a,b,c")
    assert "no format fits the first records" in said and "guessed" not in recipe.read_text()
