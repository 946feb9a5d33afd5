"""A recipe that says something impossible is told so by file, line and key, with the nearest known name."""

from __future__ import annotations

from pathlib import Path
from time import process_time

import pytest
from graftkit import load_recipe
from graftkit.errors import RecipeError

START = "model: ./m\ndata: {train: a.jsonl}\n"


def refusal(tmp_path: Path, text: str, ending: str = "yaml") -> str:
    path = tmp_path / f"recipe.{ending}"
    path.write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_a_misspelt_key_names_the_nearest_one_and_the_line(tmp_path: Path) -> None:
    found = refusal(tmp_path, START + "training:\n  epochs: 1\n  learning_rat: 1e-3\n")
    assert found.startswith("recipe.yaml:5: unknown key 'training.learning_rat'\nDid you mean 'learning_rate'? Known: ")


def test_a_misspelt_section_names_the_nearest_one_and_the_line(tmp_path: Path) -> None:
    found = refusal(tmp_path, START + "exports: [peft]\n")
    assert found.startswith("recipe.yaml:3: unknown key 'exports'\nDid you mean 'export'? Known: ")


def test_toml_errors_have_lines_too(tmp_path: Path) -> None:
    text = 'model = "./m" # \x85 \u2028\n[data]\ntrain = "a"\n\n[training]\nepoch = 3\n[[export]]\nuse = 3\n'
    found = refusal(tmp_path, text, "toml")
    assert "recipe.toml:6: unknown key 'training.epoch' (Did you mean 'epochs'?" in found
    assert "recipe.toml:8: export.0.use: must be a string, not 3" in found


def test_several_things_that_are_wrong_are_told_at_once(tmp_path: Path) -> None:
    found = refusal(tmp_path, "model: ./m\ndata: {holdout: 0.1}\ntraining: {epochs: x, sed: 1}\n")
    assert found.startswith("recipe.yaml: 3 things are wrong:")
    assert "recipe.yaml:2: 'data.train' is missing (files of records" in found
    assert "recipe.yaml:3: training.epochs: must be a number, not 'x'" in found
    assert "recipe.yaml:3: unknown key 'training.sed' (Did you mean 'seed'?" in found


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("training: {epochs: '3'}", "training.epochs: must be a number, not '3'"),
        ("training: {steps: 1.5}", "training.steps: must be an integer"),
        ("training: {epochs: true}", "training.epochs: must be a number, not True"),
        ("training: {epochs: 0}", "training.epochs: must be greater than 0, not 0"),
        ("training: {learning_rate: high}", "training.learning_rate: must be a number, not 'high'"),
        ("training: {learning_rate: .nan}", "training.learning_rate: must be"),
        ("training: {max_grad_norm: .inf}", "training.max_grad_norm: must be a finite number, not inf"),
        (
            "training: {schedule: cosin}",
            "training.schedule: must be 'cosine', 'linear', 'constant', 'wsd', 'cosine_with_restarts', 'polynomial' or "
            "'inverse_sqrt', not 'cosin'",
        ),
        ("training: {seed: -1}", "training.seed: must be greater than or equal to 0, not -1"),
        ("training: {microbatch_tokens: x}", "training.microbatch_tokens: must be an integer or 'auto', not 'x'"),
        ("evaluation: {sample: 0}", "evaluation.sample: must be greater than or equal to 1 or 'all', not 0"),
        ("training: 3", "training: must be a mapping, not 3"),
        ("training:", "training: must be a mapping, not None"),
        ("training: {epochs: 2, steps: 10}", "say either epochs or steps, not both"),
        ("adapter: 3", "adapter: must be a mapping, not 3"),
        ("adapter: {rank: 8}", "'adapter.use' is missing\n  the provider's name"),
        ("adapter: {use: lora, targets: []}", "adapter.targets: List should have at least 1 item"),
        ("export: [{name: x}]", "'export.0.use' is missing"),
        ("export: [{use: merged, name: ../x}]", "export.0.name: String should match pattern"),
        ("plugins: {disable: acme}", "plugins.disable: must be a list, not 'acme'"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    assert refusal(tmp_path, START + line).startswith(f"recipe.yaml:3: {message}")


@pytest.mark.parametrize("share", ["0.6", "-0.1", "true", "[]", "{}", ".nan", "null"])
def test_a_holdout_that_is_neither_share_nor_file_is_refused_once(tmp_path: Path, share: str) -> None:
    found = refusal(tmp_path, f"model: m\ndata:\n  train: a\n  holdout: {share}\n")
    assert found == "recipe.yaml:4: data.holdout: a share from 0 to 0.5, or a file"


@pytest.mark.parametrize("key", ["train", "holdout"])
@pytest.mark.parametrize(
    ("files", "message"),
    [
        ("[1]", "files of records: a path, a mapping with a path, or a list of either"),
        ("{format: text}", "'data.KEY.0.path' is missing"),
        ("{path: a, formt: text}", "unknown key 'data.KEY.0.formt' Did you mean 'format'?"),
        ("{path: a, columns: {text: b, content: b}}", "columns: two of the format's columns are the same column"),
        ("{path: a, unused: some}", "data.KEY.0.unused: must be 'report' or a list, not 'some'"),
    ],
)
def test_files_that_are_said_wrongly_are_refused(tmp_path: Path, key: str, files: str, message: str) -> None:
    found = refusal(tmp_path, f"model: m\ndata:\n  {key}: {files}\n" + ("" if key == "train" else "  train: a\n"))
    assert found.startswith("recipe.yaml") and message.replace("KEY", key) in found.replace("\n", " ")


def test_a_row_that_no_step_could_hold_is_refused(tmp_path: Path) -> None:
    text = "model: m\ndata: {train: a, max_length: 600}\ntraining: {tokens_per_step: 512}\n"
    assert "data.max_length (600) is more than training.tokens_per_step (512)" in refusal(tmp_path, text)


def test_left_out_max_length_shrinks_to_a_small_step() -> None:
    recipe = load_recipe({"model": "m", "data": {"train": "a"}, "training": {"tokens_per_step": 300}}).recipe
    assert recipe.max_length == 300
    assert load_recipe({"model": "m", "data": {"train": "a"}}).recipe.max_length == 1024


@pytest.mark.parametrize(
    "exports",
    [
        "[merged, merged]",
        "[peft, {use: merged, name: peft}]",
        "[peft, {use: merged, name: PEFT}]",
        "[merged, 'graftkit:merged']",
        "['a.b:merged', merged]",
    ],
)
def test_two_exports_never_share_a_folder(tmp_path: Path, exports: str) -> None:
    assert "two exports would share the folder" in refusal(tmp_path, START + f"export: {exports}")


def test_many_exports_are_compared_in_seconds() -> None:
    """Each was compared with all others: these took 15 s of processor time."""
    started = process_time()
    with pytest.raises(RecipeError, match="share the folder 'peft'"):
        load_recipe({"model": "m", "data": {"train": "a"}, "export": ["".join("peft") for _ in range(40_000)]})
    assert process_time() - started < 5


def test_two_exports_of_one_kind_need_names() -> None:
    exports = ["merged", {"use": "merged", "name": "half", "dtype": "float16"}]
    recipe = load_recipe({"model": "m", "data": {"train": "a"}, "export": exports}).recipe
    assert [export.folder for export in recipe.export] == ["merged", "half"]


def test_one_may_stand_alone_where_several_may_stand() -> None:
    mapping = {"model": "m", "data": {"train": "a"}, "adapter": {"use": "lora", "targets": "q_proj"}}
    assert load_recipe({**mapping, "export": "peft"}).recipe.export[0].use == "peft"
    assert load_recipe({**mapping, "export": {"use": "merged", "name": "x"}}).recipe.export[0].folder == "x"
    assert load_recipe(mapping).recipe.adapter.targets == ["q_proj"]
    assert len(load_recipe(mapping).recipe.data.train) == 1


def test_of_many_mistakes_the_first_are_named_in_a_moment() -> None:
    begun = process_time()
    with pytest.raises(RecipeError) as caught:
        load_recipe({"model": "m", "data": {"train": "a.jsonl"}, **{f"a{n}": n for n in range(20_000)}})
    assert process_time() - begun < 3
    assert caught.value.message.startswith("20,000 things are wrong:")
    assert "unknown key 'a99'" in caught.value.message and caught.value.message.endswith("\n  and 19,900 more")
