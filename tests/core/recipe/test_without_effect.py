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
        ({"training": {"optimizer": "lion", "beta2": 0.98, "epsilon": 1e-6}}, ["training.epsilon"]),
        ({"training": {"optimizer": "lion"}}, []),
        ({"training": {"optimizer": "adafactor", "beta1": 0.8}}, ["training.beta1"]),
        ({"training": {"warmup": 0.1, "warmup_steps": 5}}, ["training.warmup"]),
        ({"training": {"schedule": "constant", "min_lr_ratio": 0.1}}, ["training.min_lr_ratio"]),
        ({"training": {"decay": 0.2}}, ["training.decay"]),
        ({"training": {"schedule": "wsd", "decay": 0.2, "decay_type": "cosine", "min_lr_ratio": 0.1}}, []),
        ({"training": {"schedule": "cosine_with_restarts", "cycles": 3, "min_lr_ratio": 0.1}}, []),
        ({"training": {"schedule": "polynomial", "power": 2.0, "min_lr_ratio": 0.1}}, []),
        ({"training": {"schedule": "inverse_sqrt", "timescale": 9, "min_lr_ratio": 0.1}}, ["training.min_lr_ratio"]),
        (
            {"training": {"decay_type": "cosine", "cycles": 3, "power": 2.0, "timescale": 9}},
            ["training.decay_type", "training.cycles", "training.power", "training.timescale"],
        ),
        (
            {"tokenizer": {"extend": {"tokens": 0, "words": ["a"], "min_frequency": 9}}},
            ["tokenizer.extend.min_frequency"],
        ),
        ({"tokenizer": {"extend": {"words": ["a"], "min_frequency": 9}}}, []),
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


LAID_OUT = {
    "chat_template": "./t.jinja",
    "template_arguments": {"a": 1},
    "system": "first_user",
    "end_of_turn": "</s>",
    "date": "2026-01-31",
}
SAID: dict[str, dict[str, Any]] = {
    "data": {**LAID_OUT, "turns": "each", "dropped": "report", "overflow": "drop", "special_tokens": "parse"},
    "training": {"divergence_factor": 3.0, "divergence_window": 3, "neftune_noise_alpha": 5.0, "dtype": "bfloat16"},
    "memory": {"checkpoint": "blocks", "offload": True},
    "evaluation": {"metrics": "json-valid", "max_new_tokens": 3, "batch_size": 3, "every": 2, "sample": 3}
    | {"patience": 2, "min_delta": 0.1, "exported": "best"},
}
"""Every key that some objective goes by and another does not, and others."""

OF_CHATS, ANSWERS = {"turns", "dropped"}, {"metrics", "max_new_tokens", "batch_size"}
ON_TEXTS = {*LAID_OUT, *OF_CHATS} | ANSWERS
IDLE: dict[tuple[str, str], set[str]] = {
    **{(use, ""): ANSWERS for use in ("sft", "distill", "dpo", "orpo", "simpo", "kto", "reward")},
    **{(use, "chat tokens"): ANSWERS | {"special_tokens"} for use in ("sft", "distill", "dpo", "kto", "reward")},
    **{(use, "completion"): ANSWERS | OF_CHATS for use in ("sft", "distill", "dpo", "orpo", "simpo", "kto", "reward")},
    ("sft", "text"): ANSWERS | OF_CHATS | {"overflow"},
    ("sft", "text completion"): ANSWERS | OF_CHATS,
    ("sft", "chat text"): ANSWERS,
    ("grpo", "chat"): {"max_new_tokens", "divergence_factor", "divergence_window", "special_tokens"},
    ("classification", "chat"): ON_TEXTS,
    **{(use, "text"): ON_TEXTS for use in ("multi-label-classification", "regression", "token-classification")},
    **{(use, "text"): ON_TEXTS for use in ("embedding", "similarity")},
    ("masked-lm", "text"): ON_TEXTS | {"overflow"},
    ("masked-lm", "chat"): ON_TEXTS | {"overflow"},
}
"""What is told of these keys, by objective and the shapes of its records."""


@pytest.mark.parametrize(("use", "shapes"), IDLE)
def test_a_key_that_an_objective_does_not_go_by_is_told(use: str, shapes: str) -> None:
    objective = {"use": use, **({"teacher": "./t"} if use == "distill" else {})}
    recipe = BASE | SAID | {"data": {**BASE["data"], **SAID["data"]}, "objective": objective}
    told = list(without_effect(bind(load_recipe(recipe), isolated_host()), shapes.split()))
    assert {line.split()[0].partition(".")[2] for line in told} == IDLE[use, shapes] and len({*told}) == len(told)
    assert all(" has no effect: " in line for line in told)
    plain = bind(load_recipe(BASE | {"objective": objective}), isolated_host())
    assert not list(without_effect(plain, shapes.split())), "of what a recipe leaves out nothing is told"


@pytest.mark.parametrize("trains_rows", [True, False])
def test_keys_of_rows_are_told_beside_an_adapter_that_has_none(trains_rows: bool) -> None:
    rows = {"embedding_init": "random", "embedding_learning_rate": 1e-3, "embedding_warmup_steps": 5}
    recipe = BASE | {"adapter": {"use": "lora", "from": "./adapter"}, "tokenizer": rows}
    told = without_effect(bind(load_recipe(recipe), isolated_host()), trains_rows=trains_rows)
    keys = {"embedding_init"} if trains_rows else {*rows}
    assert {line.split()[0] for line in told} == {f"tokenizer.{key}" for key in keys}


def test_every_objective_is_in_the_table() -> None:
    groups = isolated_host().registry.providers_in_turn("objective")
    assert {registered.provider.name for group in groups for registered in group} == {use for use, _ in IDLE}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"adapter": {"use": "lora", "eva_rho": 3.0}}, "eva_rho is of init: eva"),
        ({"adapter": {"use": "lora", "init": "pissa", "eva_tokens": 77}}, "the start is pissa"),
        ({"objective": {"use": "distill", "teacher": "./t", "alpha": 0}}, "nothing is learnt from the teacher"),
        ({"export": {"use": "gguf", "changed": "q4_0"}}, "changed is of type: base, and the type is q8_0"),
        (
            {"export": {"use": "mlx", "bits": None, "group_size": 32}},
            "group_size is of quantized matrices, and bits is null",
        ),
    ],
)
def test_a_field_that_its_provider_never_looks_at_is_refused(sections: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        bind(load_recipe(BASE | sections), isolated_host())
