"""The keys of a recipe that may say `auto`, and stay so until the machine has been looked at."""

from __future__ import annotations

from collections.abc import Mapping

from graftkit.errors import RecipeError
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.schema.recipe import Recipe
from graftkit.report.run_manifest import SettledKey

__all__ = ["CHECKPOINT", "DTYPE", "MICROBATCH", "SETTLED_KEYS", "refuse_unsettled", "settled_recipe", "unsettled"]

DTYPE = "training.dtype"
MICROBATCH = "training.microbatch_tokens"
CHECKPOINT = "memory.checkpoint"
SETTLED_KEYS = (DTYPE, MICROBATCH, CHECKPOINT)


def unsettled(recipe: Recipe) -> list[str]:
    """Returns those of the keys that say `auto`, as "section.key"."""
    values = {
        DTYPE: recipe.training.dtype,
        MICROBATCH: recipe.training.microbatch_tokens,
        CHECKPOINT: recipe.memory.checkpoint,
    }
    return [key for key, value in values.items() if value == "auto"]


def settled_recipe(bound: BoundRecipe, found: Mapping[str, SettledKey]) -> BoundRecipe:
    """Returns a recipe with those of its keys that say `auto` at what they came to, as far as that is known."""
    return bound.with_values({key: found[key].value for key in unsettled(bound.recipe) if key in found})


def refuse_unsettled(bound: BoundRecipe) -> None:
    """Refuses keys that say `auto` where several processes train together: each would look at its own machine.

    Raises:
        RecipeError: There are such keys.
    """
    keys = unsettled(bound.recipe)
    if keys:
        raise RecipeError(
            f"{' and '.join(keys)} can't be auto where several processes train together",
            where=bound.document.where(tuple(keys[0].split("."))),
            hint="Say what every process is to take: `toolkit plan` on one of the machines tells what auto comes to.",
        )
