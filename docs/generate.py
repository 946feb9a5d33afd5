"""Writes the pages of docs/reference from the code itself: `make reference`."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click
import graftkit
from graftkit import errors
from graftkit.cli.main import cli
from graftkit.flow import events
from graftkit.interfaces.kinds import KINDS
from graftkit.recipe.reference import recipe_reference
from graftkit.testing import isolated_host
from pydantic import BaseModel

FOLDER = Path(__file__).parent / "reference"
NOTE = "<!-- `make reference` writes this page from the code. -->\n\n"


def keys(host: graftkit.PluginHost) -> str:
    """Returns every key of a recipe."""
    return (
        "# Every key of a recipe\n\n"
        "This page is what `toolkit schema --markdown` prints; with other plugins installed it prints theirs, too.\n"
        "[The recipe](../recipe.md) says how a recipe is read, `toolkit schema` prints its JSON Schema for editors.\n\n"
        + re.sub(r"^### ", "## ", recipe_reference(host), flags=re.MULTILINE)
    )


def commands(host: graftkit.PluginHost) -> str:
    """Returns the help of every command."""
    parts = [
        "# Every command\n",
        "What `toolkit COMMAND --help` prints. Exit codes stand in [the README](../../README.md#commands).\n",
    ]
    for words, command in walk(cli, ("toolkit",)):
        context = click.Context(command, info_name=" ".join(words), max_content_width=100, terminal_width=100)
        context.help_option_names = ["-h", "--help"]
        parts.append(f"## {' '.join(words)}\n\n```text\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def walk(command: click.Command, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yields a command and, of a group, those in it, with the words that name each."""
    yield words, command
    if isinstance(command, click.Group):
        context = click.Context(command, resilient_parsing=True)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*words, name))


def providers(host: graftkit.PluginHost) -> str:
    """Returns what every kind of plugin offers of graftkit's own."""
    parts = [
        "# What is built in\n",
        "`toolkit plugins` lists it with what else is installed. Fields: [every key](keys.md).\n",
    ]
    for kind in KINDS:
        rows = [
            f"| `{registered.provider.name}` | {registered.provider.summary} |"
            for registered in host.registry.providers(kind)
        ]
        parts += [
            f"## {kind}\n",
            f"[Write one](../plugins/{kind}.md).\n",
            "| name | |\n|---|---|\n" + "\n".join(rows) + "\n",
        ]
    return "\n".join(parts)


def api(host: graftkit.PluginHost) -> str:
    """Returns directives that have the site show every public name with its signature and its docstring."""
    for_plugins: dict[str, list[str]] = {}
    to_run: list[str] = []
    for name, home in graftkit._HOMES.items():
        part, _, module = home.removeprefix("graftkit.").partition(".")
        (for_plugins.setdefault(module, []) if part == "interfaces" else to_run).append(f"graftkit.{name}")
    parts = [
        "# Python API\n",
        "The site that `make docs` builds shows signatures and docstrings here; they stand in the code, too. "
        "[Inside a program](../embedding.md) shows how they are used.\n",
        f"## To run recipes\n\n{directives(to_run)}",
        f"## Errors\n\n```text\n{errors.__doc__}```\n",
        directives([f"graftkit.errors.{name}" for name in errors.__all__]),
        f"## Events\n\n{directives([f'graftkit.flow.events.{name}' for name in events.__all__])}",
        "## To write plugins with\n",
    ]
    parts += [f"### {module.replace('_', ' ')}\n\n{directives(names)}" for module, names in sorted(for_plugins.items())]
    return "\n".join(parts)


def directives(names: Sequence[str]) -> str:
    """Returns what has Sphinx document these names, and what classes hold."""
    return "```{eval-rst}\n" + "".join(directive(name, pkgutil.resolve_name(name)) for name in names) + "```\n"


def directive(name: str, value: object) -> str:
    """Returns autodoc's directive for a value; the fields of a config model are among the keys of a recipe."""
    if isinstance(value, type):
        return f".. autoclass:: {name}\n" + "   :members:\n" * (not issubclass(value, BaseModel))
    return f".. {'autofunction' if inspect.isfunction(value) else 'autodata'}:: {name}\n"


PAGES: Mapping[str, Callable[[graftkit.PluginHost], str]] = {
    "keys.md": keys,
    "commands.md": commands,
    "providers.md": providers,
    "api.md": api,
}


def pages() -> dict[str, str]:
    """Returns each generated page by its name."""
    host = isolated_host()
    return {name: NOTE + make(host) for name, make in PAGES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
