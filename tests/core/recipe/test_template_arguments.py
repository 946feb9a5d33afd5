"""What a recipe gives its chat template besides the conversation: values of JSON under names that are free."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from graftkit.errors import RecipeError
from graftkit.recipe.load import load_recipe
from graftkit.recipe.schema.recipe import Recipe


def loaded(arguments: Any) -> Recipe:
    return load_recipe({"model": "m", "data": {"train": "a.jsonl", "template_arguments": arguments}}).recipe


def test_values_of_json_are_kept_as_they_are() -> None:
    given = {"enable_thinking": False, "effort": "low", "n": [1, 2.5, None], "more": {"a": {"b": True}}}
    assert loaded(given).data.template_arguments == given


@pytest.mark.parametrize(
    "name", ["messages", "tools", "add_generation_prompt", "bos_token", "raise_exception", "tokenize"]
)
def test_names_that_mean_something_already_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match=f"template_arguments: {name} is what every template is given already"):
        loaded({name: 1})


@pytest.mark.parametrize("name", ["a b", "1a", "a-b", ""])
def test_names_that_no_variable_has_are_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="can't be the name of a template's variable"):
        loaded({name: 1})


@pytest.mark.parametrize("value", [float("nan"), date(2026, 1, 1), [float("inf")], {"a": {1: 2}}])
def test_values_that_json_lacks_are_refused(value: Any) -> None:
    with pytest.raises(RecipeError, match="the value of x is none of JSON"):
        loaded({"x": value})


def test_something_else_than_a_mapping_is_refused() -> None:
    with pytest.raises(RecipeError, match="a mapping of names to values"):
        loaded(["enable_thinking"])


@pytest.mark.parametrize("section", [{}, {"path": "a.jinja", "name": "rag"}, {"name": ""}])
def test_a_template_is_a_file_or_a_name(section: dict[str, str]) -> None:
    with pytest.raises(RecipeError, match="chat_template"):
        load_recipe({"model": "m", "data": {"train": "a.jsonl", "chat_template": section}})
