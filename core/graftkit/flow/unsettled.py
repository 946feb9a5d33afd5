"""The keys of a recipe that may say `auto`, and stay so until the machine has been looked at."""

from __future__ import annotations

from collections.abc import Mapping

from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.schema import Recipe
from graftkit.report.run_manifest import SettledKey

__all__ = ["CHECKPOINT", "DTYPE", "MICROBATCH", "SETTLED_KEYS", "settled_recipe", "unsettled"]

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
