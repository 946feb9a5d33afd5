"""`toolkit schema`: the recipe's JSON Schema."""

from __future__ import annotations

import json

import click

from graftkit.host.host import PluginHost
from graftkit.recipe.json_schema import recipe_schema

__all__ = ["command"]


@click.command("schema")
def command() -> None:
    """Print the recipe's JSON Schema, with the fields of every installed provider, for editors."""
    click.echo(json.dumps(recipe_schema(PluginHost()), indent=2))
