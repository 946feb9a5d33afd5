"""What a recipe says and nothing goes by is told."""

from __future__ import annotations

from typing import Any

import pytest
from graftkit.errors import RecipeError
from graftkit.recipe.bind import bind
from graftkit.recipe.load import load_recipe
from graftkit.recipe.without_effect import without_effect
from graftkit.testing import isolated_host

BASE: dict[str, Any] = {"model": "./m", "data": {"train": "a.jsonl"}}


@pytest.mark.parametrize(
    ("sections", "keys"),
    [
        ({}, []),
        ({"evaluation": {"answers": 4, "metrics": "json-valid", "max_new_tokens": 3}}, []),
        (
            {"evaluation": {"metrics": "json-valid", "max_new_tokens": 3}},
            ["evaluation.metrics", "evaluation.max_new_tokens"],
        ),
        ({"evaluation": {"metrics": {"use": "exact-match", "ignore_case": True}}}, ["evaluation.metrics"]),
        ({"evaluation": {"sample": 3, "min_delta": 0.1}}, ["evaluation.sample", "evaluation.min_delta"]),
        ({"evaluation": {"every": 5, "sample": 3, "min_delta": 0.1}}, ["evaluation.min_delta"]),
        ({"evaluation": {"every": 5, "sample": 3, "min_delta": 0.1, "patience": 2}}, []),
        ({"training": {"divergence_factor": None, "divergence_window": 3}}, ["training.divergence_window"]),
        ({"training": {"optimizer": "sgd", "beta2": 0.95, "epsilon": 1e-6}}, ["training.beta2", "training.epsilon"]),
        ({"training": {"schedule": "constant", "min_rate": 0.1}}, ["training.min_rate"]),
        ({"proof": "later", "export": "merged"}, []),
        ({"proof": "later"}, ["proof"]),
    ],
)
def test_a_key_that_another_one_puts_out_of_action_is_told(sections: dict[str, Any], keys: list[str]) -> None:
    bound = bind(load_recipe(BASE | sections), isolated_host())
    assert [line.split()[0] for line in without_effect(bound)] == keys
    of_a_manifest = bind(load_recipe(bound.resolved()), isolated_host())  # as `toolkit export` reads it
    told = list(without_effect(of_a_manifest))
    assert [line.split()[0] for line in told] == keys


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"adapter": {"use": "lora", "eva_rho": 3.0}}, "eva_rho is of init: eva"),
        ({"adapter": {"use": "lora", "init": "pissa", "eva_tokens": 77}}, "the start is pissa"),
        ({"objective": {"use": "distill", "teacher": "./t", "alpha": 0}}, "nothing is learnt from the teacher"),
    ],
)
def test_a_field_that_its_provider_never_looks_at_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        bind(load_recipe(BASE | sections), isolated_host())
