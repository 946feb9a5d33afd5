"""Writes the pages of docs/reference from the code itself: `make reference`."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
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


HELPERS: Mapping[str, tuple[str, Sequence[str]]] = {
    "A model's folder": (
        "config.json, tensors, tokenizer and generation settings, as transformers loads them. "
        "`graftkit.exporting.config` imports no torch, as a provider's config model must not.",
        (
            "exporting.model_folder",
            "exporting.sentence_folder",
            "exporting.lora_matrices",
            "exporting.shards",
            "exporting.config",
            "interfaces.architecture",
        ),
    ),
    "An adapter's folder": (
        "In PEFT's format, and what may be read of one that somebody else made.",
        ("exporting.peft_folder", "interfaces.peft_config"),
    ),
    "Model cards": ("What `card(request)` returns.", ("exporting.cards",)),
    "Files": (
        "Those of strangers are read with a bound, and nothing but data is read out of them.",
        ("interfaces.json_file", "interfaces.bounded_json", "interfaces.regular_file", "interfaces.temporary"),
    ),
    "Weights and logits": ("", ("interfaces.checks", "interfaces.forward", "interfaces.quiet")),
    "Tokenizers": (
        "What the built-in backends share.",
        ("tokenization.tokenizer_json", "tokenization.splitting", "tokenization.byte_alphabet", "tokenization.words"),
    ),
    "Tests": ("What tests of a plugin begin with.", ("testing.tiny", "testing.example_records", "testing.hosts")),
}
"""Public modules that plugin authors build with, by what they are for."""


def helpers(host: graftkit.PluginHost) -> str:
    """Returns the functions that plugins may call, with signatures and docstrings."""
    parts = [
        "# Helpers for plugin authors\n",
        "What the built-in plugins are made of, and yours may be: within an API major these names and arguments go on "
        "working. [Plugins](../plugins.md) says what else may be imported, [the API](api.md) has the types.\n",
    ]
    for title, (why, modules) in HELPERS.items():
        parts += [f"## {title}\n", *([f"{why}\n"] if why else [])]
        parts += [helper for module in modules for helper in helpers_of(f"graftkit.{module}")]
    return "\n".join(parts)


def helpers_of(module: str) -> Iterator[str]:
    """Yields a module's public names, each as a part of a page, in the order of its code."""
    source = inspect.getsource(importlib.import_module(module))
    public = set(importlib.import_module(module).__all__)
    tree = ast.parse(source).body
    for node, following in zip(tree, [*tree[1:], None], strict=True):
        name = name_of(node)
        if name not in public:
            continue
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            lines, said = source.splitlines()[node.lineno - 1 : node.body[0].lineno - 1], ast.get_docstring(node)
            shown = "\n" + "\n".join(lines).rstrip() + " ..."
        else:
            shown = ast.get_source_segment(source, node) or ""
            shown = shown if len(shown) <= 200 else name
            said = text_of(following)
        yield f"### {name}\n\n```python\nfrom {module} import {name}\n\n{shown}\n```\n\n{as_markdown(said or '')}"


def types(host: graftkit.PluginHost) -> str:
    """Returns the classes that plugins are given, give and keep, with their fields, methods and docstrings."""
    modules: dict[str, list[str]] = {}
    for name, home in graftkit._HOMES.items():
        for_plugins = home.startswith(("graftkit.interfaces.", "graftkit.host.lifecycle"))
        if for_plugins and isinstance(getattr(graftkit, name), type):
            modules.setdefault(home, []).append(name)
    parts = [
        "# Types for plugin authors\n",
        "What a plugin is given, what it gives, and what it has to have: `from graftkit import NAME`. Within an API "
        "major fields may be added; none is renamed. [Plugins](../plugins.md) says how they are used, "
        "[helpers](helpers.md) has the functions.\n",
    ]
    for home in sorted(modules, key=lambda home: home.rpartition(".")[2]):
        parts.append(f"## {home.rpartition('.')[2].replace('_', ' ')}\n")
        source = inspect.getsource(importlib.import_module(home))
        classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
        parts += [
            f"### {node.name}\n\n```python\n{stub(node)}\n```\n\n{as_markdown(ast.get_docstring(node) or '')}"
            for node in classes
            if node.name in modules[home]
        ]
    return formatted("\n".join(parts))


def formatted(page: str) -> str:
    """Returns a page whose blocks of Python are formatted as all of the project's are."""
    command = [str(Path(sys.executable).with_name("ruff")), "format", "--stdin-filename", str(FOLDER / "types.md"), "-"]
    return subprocess.run(command, input=page, capture_output=True, text=True, check=True).stdout


def stub(node: ast.ClassDef) -> str:
    """Returns a class's fields and public methods, each method with the first line of its docstring."""
    lines = []
    for part in node.body:
        if isinstance(part, ast.AnnAssign) and not ast.unparse(part.target).startswith("_"):
            lines.append(f"    {ast.unparse(part)}")
        elif isinstance(part, ast.FunctionDef) and not part.name.startswith("_"):
            said = (ast.get_docstring(part) or "").partition("\n\n")[0].split()
            bare = ast.FunctionDef(
                part.name, part.args, [ast.Expr(ast.Constant(...))], part.decorator_list, part.returns
            )
            written = ast.unparse(ast.fix_missing_locations(bare)).replace(":\n    ...", ": ...").strip()
            comment = textwrap.wrap(" ".join(said), 100, initial_indent="# ", subsequent_indent="# ")
            lines += ["", *(f"    {line}" for line in [*comment, *written.splitlines()])]
    bases = ", ".join(map(ast.unparse, node.bases))
    return "\n".join([f"class {node.name}{f'({bases})' if bases else ''}:", *(lines or ["    ..."])])


def name_of(node: ast.stmt) -> str:
    """Returns what a statement of a module defines, or ""."""
    match node:
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            return name
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return ""


def text_of(node: ast.stmt | None) -> str:
    """Returns a statement that is a text alone, as below a constant, or ""."""
    match node:
        case ast.Expr(value=ast.Constant(value=str(text))):
            return text
    return ""


def as_markdown(docstring: str) -> str:
    """Returns a docstring in Google's style as Markdown: its sections as lists, examples as code."""
    parts = []
    text, *sections = re.split(r"^(Args|Attributes|Returns|Raises|Example):\n", inspect.cleandoc(docstring), flags=re.M)
    parts.append(text.strip())
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        said = textwrap.dedent(body).strip()
        if title == "Example":
            parts.append(f"```text\n{said}\n```" if said.startswith(">>>") else said)
        elif title == "Returns":
            parts.append(f"Returns: {' '.join(said.split())}")
        else:
            entries = re.split(r"^(?=\S)", said, flags=re.M)[1:]
            items = [" ".join(entry.split()).partition(": ") for entry in entries]
            parts.append(f"{title}:\n\n" + "\n".join(f"- `{name}`: {rest}" for name, _, rest in items))
    return "\n\n".join(part for part in parts if part) + "\n"


PAGES: Mapping[str, Callable[[graftkit.PluginHost], str]] = {
    "keys.md": keys,
    "commands.md": commands,
    "providers.md": providers,
    "api.md": api,
    "helpers.md": helpers,
    "types.md": types,
}


def pages() -> dict[str, str]:
    """Returns each generated page by its name."""
    host = isolated_host()
    return {name: NOTE + make(host) for name, make in PAGES.items()}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
