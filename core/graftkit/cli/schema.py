"""`toolkit schema`: the recipe's JSON Schema."""

from __future__ import annotations

import json

import click

from graftkit.cli.options import disable_option, open_host
from graftkit.recipe.json_schema import recipe_schema
from graftkit.recipe.reference import recipe_reference

__all__ = ["command"]


@click.command("schema")
@click.option("--markdown", is_flag=True, help="Print tables to read instead.")
@disable_option
def command(markdown: bool, disable: tuple[str, ...]) -> None:
    """Print the recipe's JSON Schema, with the fields of every installed provider, for editors."""
    host = open_host(disable)
    click.echo(recipe_reference(host) if markdown else json.dumps(recipe_schema(host), indent=2))
