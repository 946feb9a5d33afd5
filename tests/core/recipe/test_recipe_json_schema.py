"""The schema that editors are given allows what a recipe may say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from graftkit import PluginHost
from graftkit.recipe.json_schema import recipe_schema
from graftkit.recipe.schema.recipe import Recipe
from pydantic import ValidationError


def forms(schema: dict[str, Any]) -> list[str]:
    return [form.get("type", form.get("$ref", "")) for form in schema["anyOf"]]


def test_new_rows_are_a_name_or_an_initializer_with_its_fields() -> None:
    rows = recipe_schema(PluginHost())["$defs"]["TokenizerSection"]["properties"]["embedding_init"]
    word, *sections = rows["anyOf"]
    fields = {section["properties"]["use"]["enum"][0]: set(section["properties"]) - {"use"} for section in sections}
    assert {"focus", "mean", "random", "weighted"} <= set(word["examples"])
    assert fields["mean"] == set() and fields["weighted"] == {"ratio", "end"}
    assert rows["default"] == "mean" and "initializer" in rows["description"]


def test_a_corpus_and_another_tokenizer_may_be_one_word() -> None:
    definitions = recipe_schema(PluginHost())["$defs"]
    assert "string" in forms(definitions["TokenizerSection"]["properties"]["replace"])
    assert "string" in forms(definitions["ExtendSection"]["properties"]["corpus"])
    assert "string" in forms(definitions["TrainVocabularySection"]["properties"]["corpus"])


def numbers(schema: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields what a schema says of each number, with its path."""
    if isinstance(schema, dict):
        if schema.get("type") in ("integer", "number") and "enum" not in schema:
            yield path, schema
        for key, inner in schema.items():
            yield from numbers(inner, f"{path}.{key}")
    elif isinstance(schema, list):
        for place, inner in enumerate(schema):
            yield from numbers(inner, f"{path}.{place}")


def test_every_number_has_a_least_and_a_largest_value_which_libraries_take() -> None:
    """A larger one ended in an error of Python's or torch's own, after work was done."""
    found = dict(numbers(recipe_schema(PluginHost())))
    assert len(found) > 60 and any("alpha_pattern" in path for path in found)
    for path, number in found.items():
        assert "minimum" in number or "exclusiveMinimum" in number, path
        largest = number.get("maximum", number.get("exclusiveMaximum"))
        assert largest is not None and largest <= (2**63 if path.endswith("seed") else 1e12), path


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("training", "divergence_window", 10**26),
        ("evaluation", "max_new_tokens", 9_999_999_999_999_999_999),
        ("training", "max_grad_norm", 1e308),
        ("training", "learning_rate", 1e-320),
        ("data", "max_length", 1 << 62),
    ],
)
def test_a_number_beyond_every_use_is_refused_by_name(section: str, key: str, value: float) -> None:
    recipe = {"model": "./m", "data": {"train": "a.jsonl"}}
    recipe[section] = {**recipe.get(section, {}), key: value}  # type: ignore[dict-item]
    with pytest.raises(ValidationError, match=rf"{section}\.{key}\n"):
        Recipe.model_validate(recipe)
