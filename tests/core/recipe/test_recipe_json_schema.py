"""The schema that editors are given allows what a recipe may say."""

from __future__ import annotations

from typing import Any

from graftkit import PluginHost
from graftkit.recipe.json_schema import recipe_schema


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
