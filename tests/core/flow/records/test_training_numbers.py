"""What a training comes to, of the records' lengths."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from graftkit.flow.records.estimate import CorpusEstimate
from graftkit.flow.records.training_numbers import choose_training, describe_chosen, estimate_steps
from graftkit.recipe.load import load_recipe
from graftkit.recipe.schema.recipe import Recipe
from graftkit.training.order import plan_steps


@pytest.mark.parametrize("epochs", [1, 3, 5, 2.5, 0.5])
@pytest.mark.parametrize("repeats", [1, 2])
def test_of_records_that_were_all_looked_at_the_steps_are_those_of_the_run(epochs: float, repeats: int) -> None:
    """Each epoch has an order of its own, in which as many tokens a step make another number of steps."""
    differed = False
    for seed in range(8):
        random = Random(seed)
        lengths = [random.randint(5, 150) for _ in range(40)]
        training = {"epochs": epochs, "tokens_per_step": 200, "seed": seed}
        recipe = Recipe.model_validate({"model": "m", "data": {"train": "a.jsonl"}, "training": training})
        found = estimate_steps(recipe, CorpusEstimate(len(lengths), lengths, lengths, 1.0, sampled=False), repeats)
        planned = plan_steps(lengths, seed=seed, tokens_per_step=200, epochs=epochs)
        assert found.steps == repeats * len(planned)
        differed = differed or found.steps != found.an_epoch * epochs
    assert differed == (epochs != 1)


def test_so_many_epochs_are_chosen_or_named_that_thirty_steps_are_taken() -> None:
    for seed in range(8):
        random = Random(seed)
        lengths = [random.randint(5, 150) for _ in range(random.randint(1, 12))]
        training: dict[str, Any] = {"tokens_per_step": 200, "learning_rate": 1e-3, "seed": seed}
        recipe = Recipe.model_validate({"model": "m", "data": {"train": "a.jsonl"}, "training": training})
        corpus = CorpusEstimate(len(lengths), lengths, lengths, 1.0, sampled=False)
        chosen = choose_training(recipe, corpus, files=Any)  # type: ignore[arg-type]
        found = estimate_steps(with_epochs(recipe, chosen["epochs"]), corpus)
        assert found.steps >= 30 and found.epochs == chosen["epochs"] == max(3, found.enough_epochs)
        assert chosen["epochs"] == 3 or estimate_steps(with_epochs(recipe, chosen["epochs"] - 1), corpus).steps < 30


def test_no_record_at_all_takes_an_epoch_a_step() -> None:
    recipe = Recipe.model_validate({"model": "m", "data": {"train": "a.jsonl"}})
    assert estimate_steps(recipe, CorpusEstimate(0, [], [], 1.0, sampled=False)).enough_epochs == 30


@pytest.mark.parametrize("rate", [1e-3, 1.25e-4, 2.5e-5, 0.05, 3.33e-7])
def test_a_chosen_rate_is_told_as_it_is(rate: float, tmp_path: Path) -> None:
    """Also one that a plugin's factor gives more digits."""
    told = describe_chosen({"epochs": 3, "learning_rate": rate})
    (tmp_path / "recipe.yaml").write_text(f"model: m\ndata: {{train: a.jsonl}}\n{told}\n")
    said = load_recipe(tmp_path / "recipe.yaml").recipe.training
    assert (said.epochs, said.learning_rate) == (3, rate)


def with_epochs(recipe: Recipe, epochs: float) -> Recipe:
    """Returns a recipe that says its epochs."""
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})
