"""`toolkit plugin`: start a plugin of one's own, test one that is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal, cast

import click

from graftkit.interfaces.kinds import KINDS, Kind

__all__ = ["command"]


@click.group("plugin")
def command() -> None:
    """Start a plugin of your own, or test one that is installed."""


@command.command("new", short_help="Write a project to start a plugin from.")
@click.argument("name")
@click.option("--kind", required=True, type=click.Choice([*KINDS, "command"]), help="What it provides.")
@click.option("--in", "parent", type=click.Path(path_type=Path), default=".", help="The folder to write into.")
def new(name: str, kind: str, parent: Path) -> None:
    """Write an installable project graftkit-NAME whose contract tests pass as generated."""
    from graftkit.scaffold.new import new_plugin

    project = new_plugin(name, cast('Kind | Literal["command"]', kind), parent)
    click.echo(f"wrote {project}\n\nNext:\n  pip install -e '{project}[test]'\n  python -m pytest {project}")


@command.command("check", short_help="Run the contracts on installed plugins.")
@click.argument("name", required=False)
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="KEY=VALUE",
    help="A field that the provider is made with; repeatable.",
)
@click.option("--quiet", "-q", is_flag=True, help="Show only what fails.")
def check(name: str | None, assignments: tuple[str, ...], quiet: bool) -> None:
    """Run the contracts on an installed plugin, by its, its distribution's or a provider's NAME; or on all."""
    from graftkit.cli.options import open_host
    from graftkit.cli.terminal import say
    from graftkit.scaffold.check import check_plugins, checked_fields, find_offers, without_contract

    host = open_host(())
    providers, others = find_offers(host, name), without_contract(host, name)
    for line in others:
        say([line])
    if not providers:
        if not others:
            click.echo("no plugin but graftkit's own is installed; name one of those to check it")
        return
    fields = checked_fields(host, providers, assignments)
    sys.exit(1 if check_plugins(providers, quiet=quiet, fields=fields) else 0)
