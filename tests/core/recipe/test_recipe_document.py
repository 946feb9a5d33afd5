"""Recipes are read strictly: what a file says is what a recipe holds, and anything else is refused with its line."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from graftkit import load_recipe
from graftkit.errors import RecipeError
from graftkit.recipe.document import MAX_BYTES, read_document
from graftkit.recipe.load import recipe_name
from hypothesis import given, settings
from hypothesis import strategies as st

YAML = """\
model: ./smollm2
data: {train: [a.jsonl, b.txt], holdout: 0.1, max_length: 512}
quantizer: {use: nf4, double_quant: true}
adapter: {use: lora, rank: 8, alpha: 16, targets: [q_proj, v_proj]}
training: {epochs: 2, learning_rate: 2e-4, seed: 7}
export: [peft, {use: merged, name: whole}]
"""
TOML = """\
model = "./smollm2"

[data]
train = ["a.jsonl", "b.txt"]
holdout = 0.1
max_length = 512

[quantizer]
use = "nf4"
double_quant = true

[adapter]
use = "lora"
rank = 8
alpha = 16
targets = ["q_proj", "v_proj"]

[training]
epochs = 2
learning_rate = 2e-4
seed = 7

[[export]]
use = "peft"
[[export]]
use = "merged"
name = "whole"
"""


def data(tmp_path: Path, text: str, ending: str = "yaml") -> dict[str, Any]:
    path = tmp_path / f"recipe.{ending}"
    path.write_text(text, encoding="utf-8")
    return read_document(path).data


def refusal(tmp_path: Path, content: str | bytes, ending: str = "yaml") -> str:
    path = tmp_path / f"recipe.{ending}"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(RecipeError) as caught:
        read_document(path)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_yaml_and_toml_say_the_same(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(YAML)
    (tmp_path / "recipe.toml").write_text(TOML)
    from_yaml, from_toml = (load_recipe(tmp_path / f"recipe.{ending}") for ending in ("yaml", "toml"))
    assert from_yaml.recipe == from_toml.recipe
    assert from_yaml.recipe.training.learning_rate == 0.0002
    assert from_yaml.recipe.adapter.options == {"rank": 8, "alpha": 16}
    assert recipe_name(tmp_path / "recipe.yaml") == "recipe"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2e-4", 0.0002),
        ("1E3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-3", -3),
        ("007", 7),
        (".inf", float("inf")),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("on", "on"),
        ("Yes", "Yes"),
        ("off", "off"),
        ("y", "y"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("12:30:00", "12:30:00"),
        ("2024-01-02", "2024-01-02"),
        ("1e", "1e"),
        ("-", None),
        ("'3'", "3"),
        ('"true"', "true"),
        ("=", "="),
    ],
)
def test_yaml_words_and_numbers_mean_what_they_look_like(tmp_path: Path, written: str, meant: object) -> None:
    if written == "-":
        assert data(tmp_path, "a:\n  -\n") == {"a": [None]}
        return
    found = data(tmp_path, f"a: {written}\n")["a"]
    assert found == meant and type(found) is type(meant)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 2\n  c: 3\n", "recipe.yaml:4: the key 'c' stands here a second time"),
        ("a: 1\n'a': 2\n", "recipe.yaml:2: the key 'a' stands here a second time"),
        ("a: &x 1\nb: *x\n", "recipe.yaml:2: not valid YAML: aliases are not read"),
        ("a: 1\nb: !!int '3'\n", "recipe.yaml:2: not valid YAML: tags are not read"),
        ("a: !!python/object/apply:os.system [ls]\n", "recipe.yaml:1: not valid YAML: tags are not read"),
        ("a: 1\n? [b]\n: 2\n", "recipe.yaml:2: a key is one word"),
        ("a: 1\nb: [1\n", "recipe.yaml:3: not valid YAML: "),
        ("a: 1\n\tb: 2\n", "recipe.yaml:2: not valid YAML: "),
        ("a: 1\n---\nb: 2\n", "recipe.yaml:2: not valid YAML: "),
        ("a: 1\nb: \x01\n", "recipe.yaml:2: not valid YAML: the character '\\x01'"),
        ('a: "\\UFFFFFFFF"\n', "recipe.yaml: not valid YAML: "),
        ("a: 1\nb: " + "9" * 5000, "recipe.yaml:2: a number too long to read"),
        ("a: 1\nb: [9999999999999999999]", "recipe.yaml:2: a number too long to read"),
        ("%YAML " + "9" * 5000 + ".1\n---\na: 1\n", "recipe.yaml: not valid YAML: a number too long to read"),
        ('a: 1\nb: ["\\ud800x"]\n', "recipe.yaml:2: half of a surrogate pair, which is no text"),
        ("", "recipe.yaml: the recipe is empty"),
        ("# nothing\n", "recipe.yaml: the recipe is empty"),
        ("- a\n", "recipe.yaml: a recipe is a mapping of sections"),
        ("word\n", "recipe.yaml: a recipe is a mapping of sections"),
        ("a: 1\nb: " + "[" * 30 + "]" * 30, "recipe.yaml:2: nested too deeply"),
        ("a: " + "[" * 100_000, "recipe.yaml: not valid YAML: "),
        ("a: " + "{b: " * 5000, "recipe.yaml: not valid YAML: "),
    ],
)
def test_yaml_that_means_nothing_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_days_and_times_of_toml_are_texts_as_those_of_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = [2020-01-31, {b = 07:32:00}]\nc = 1979-05-27T07:32:00Z\n")
    found = read_document(tmp_path / "a.toml").data
    assert found == {"a": ["2020-01-31", {"b": "07:32:00"}], "c": "1979-05-27T07:32:00+00:00"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\na = 2\n", "recipe.toml:2: not valid TOML: Cannot overwrite a value"),
        ("a = 1\nb = \n", "recipe.toml:2: not valid TOML: "),
        ("a = [1,\n", "recipe.toml: not valid TOML: "),
        ("a = " + "9" * 5000, "recipe.toml: not valid TOML: a number too long to read"),
        ("a = 1\nb = [0x" + "f" * 5000 + "]", "recipe.toml:2: a number too long to read"),
        ("a = 1\nb = " + "[" * 30 + "]" * 30, "recipe.toml:2: nested too deeply"),
        ("a = " + "[" * 100_000, "recipe.toml: nested too deeply"),
    ],
)
def test_toml_that_means_nothing_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text, "toml").startswith(message)


@pytest.mark.parametrize("ending", ["yaml", "toml"])
def test_a_file_that_is_not_utf8_is_refused_with_the_line(tmp_path: Path, ending: str) -> None:
    content = "a: 1\n# h\xf6lzern\n".encode("latin-1")
    assert refusal(tmp_path, content, ending).startswith(f"recipe.{ending}:2: not UTF-8\nSave the file as UTF-8.")


@pytest.mark.parametrize(("ending", "text"), [("yaml", "a: ö\r\nb: 2\r\n"), ("toml", 'a = "ö"\r\nb = 2\r\n')])
def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path: Path, ending: str, text: str) -> None:
    (tmp_path / f"recipe.{ending}").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_document(tmp_path / f"recipe.{ending}").data == {"a": "ö", "b": 2}


def test_a_file_too_large_for_a_recipe_is_not_read_to_its_end(tmp_path: Path) -> None:
    assert refusal(tmp_path, b"#" * (MAX_BYTES + 1)).startswith("recipe.yaml: too large for a recipe")
    with (tmp_path / "recipe.toml").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(RecipeError, match="too large"):
        read_document(tmp_path / "recipe.toml")


def test_a_path_that_is_no_recipe_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no such file\n`toolkit init` writes a recipe to start from"):
        read_document(tmp_path / "missing.yaml")
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(RecipeError, match="this is no regular file"):
        read_document(tmp_path / "folder.yaml")
    with pytest.raises(RecipeError, match="a recipe's name ends in"):
        read_document(tmp_path / "model.gguf")


_PIECES = st.sampled_from("[]{}'\"~/!>#=?|\n\0") | st.sampled_from(
    [
        "model",
        "data",
        ": ",
        "  ",
        "- ",
        "\\U",
        "FFFFFFFF",
        "\\ud800",
        "&a",
        "*a",
        "!!int ",
        "%YAML 1.2",
        "---",
        "<<",
        ".inf",
        "[[",
        " = ",
        "9" * 4400,
    ]
)
_TEXTS = st.text() | st.lists(_PIECES | st.text(max_size=3)).map("".join)


@settings(max_examples=200)
@given(_TEXTS, st.sampled_from(["yaml", "toml"]))
def test_no_text_raises_anything_but_a_recipe_error(text: str, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"recipe.{ending}"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            load_recipe(path)
        except RecipeError as error:
            assert str(path) in str(error)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_SECTIONS = ["model", "data", "quantizer", "adapter", "training", "evaluation", "export", "plugins"]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(_SECTIONS), _VALUES), _VALUES)
def test_no_mapping_raises_anything_but_a_recipe_error(sections: dict[str, Any], train: object) -> None:
    for mapping in (sections, {"model": "m", "data": {"train": train}, **sections}):
        try:
            load_recipe(mapping)
        except RecipeError:
            continue
