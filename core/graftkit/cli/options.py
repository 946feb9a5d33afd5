"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from graftkit.host.host import PluginHost

__all__ = ["disable_option", "host_of", "json_option", "recipe_arguments"]

_F = TypeVar("_F", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on standard output.")

disable_option = click.option(
    "--disable-plugin",
    "disable",
    multiple=True,
    metavar="NAME",
    help="Leave out a plugin or all of a distribution's; may be repeated.",
)


def recipe_arguments(function: _F) -> _F:
    """Adds the recipe's path and `--set`."""
    function = click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a key, such as training.epochs=3; may be repeated.",
    )(function)
    return click.argument("recipe", type=click.Path())(function)


def host_of(recipe: str, overrides: Sequence[str], disable: Sequence[str]) -> PluginHost:
    """Makes the plugins that a recipe is run with: without those that it, or the command line, leaves out."""
    from graftkit.host.host import PluginHost
    from graftkit.recipe.load import load_recipe

    loaded = load_recipe(recipe, overrides)
    return PluginHost(disable=[*disable, *loaded.recipe.plugins.disable])
