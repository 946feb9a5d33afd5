"""`toolkit schema`: the recipe's JSON Schema."""

from __future__ import annotations

import json

import click

from graftkit.host.host import PluginHost
from graftkit.recipe.json_schema import recipe_schema
from graftkit.recipe.reference import recipe_reference

__all__ = ["command"]


@click.command("schema")
@click.option("--markdown", is_flag=True, help="Print tables to read instead.")
def command(markdown: bool) -> None:
    """Print the recipe's JSON Schema, with the fields of every installed provider, for editors."""
    host = PluginHost()
    click.echo(recipe_reference(host) if markdown else json.dumps(recipe_schema(host), indent=2))
