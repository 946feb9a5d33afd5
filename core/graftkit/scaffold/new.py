"""Writes an installable plugin whose contract tests pass as written."""

from __future__ import annotations

import keyword
import os
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, cast

from graftkit._version import __version__
from graftkit.errors import FolderError, RequestError
from graftkit.interfaces.kinds import KINDS, Kind
from graftkit.store.folders import new_folder
from graftkit.store.system import guarded
from graftkit.store.temporaries import sweep_of

__all__ = ["COMMAND", "new_plugin", "plugin_names"]

TEMPLATES = files("graftkit.scaffold").joinpath("templates")
"""A kind's templates: KIND.py, KIND.test.py, and KIND.PART.py for each part that `KindSpec.scaffold` names."""

COMMAND = "command"
"""What a plugin that offers a command of `toolkit` is asked for as: no kind of provider, since no recipe chooses it."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST_NAME = 100


def plugin_names(name: str) -> dict[str, str]:
    """Returns what a plugin's parts are called.

    Example:
        >>> plugin_names("ternary")["module"], plugin_names("graftkit-my-lora")["cls"]
        ('graftkit_ternary', 'MyLora')

    Raises:
        RequestError: The name has other characters than lower-case letters, digits and single hyphens, or too many.
    """
    if not _NAME.fullmatch(name):
        raise RequestError(f"'{name}': use lower-case letters, digits and single hyphens, such as my-quantizer")
    if len(name) > _LONGEST_NAME:
        raise RequestError(f"the name has {len(name):,} letters; use {_LONGEST_NAME} at most")
    short = name.removeprefix("graftkit-")
    words = short.replace("-", "_")
    if keyword.iskeyword(words) or not short:
        raise RequestError(f"'{name}' is no name for a Python module")
    return {
        "name": short,
        "distribution": f"graftkit-{short}",
        "module": f"graftkit_{words}",
        "cls": "".join(word.capitalize() for word in short.split("-")),
    }


def new_plugin(name: str, kind: Kind | Literal["command"], parent: Path) -> Path:
    """Writes `graftkit-NAME/` below a folder.

    Args:
        name: The provider's name, or the command's.
        kind: What it provides.
        parent: The folder to write into.

    Returns:
        The project's folder.

    Raises:
        RequestError: The name can't be used.
        FolderError: There is such a folder already, or what should hold it is none.
    """
    names = plugin_names(name)
    project = parent / names["distribution"]
    sweep_of(project)
    if project.exists():
        raise FolderError("there is such a folder already", where=str(project), hint="Choose another name.")
    if os.path.lexists(parent) and not parent.is_dir():
        raise FolderError("it is no folder", where=str(parent), hint="Name a folder to write the plugin into.")
    with guarded(parent):
        parent.mkdir(parents=True, exist_ok=True)
    spec = None if kind == COMMAND else KINDS[cast(Kind, kind)]
    values = {
        **names,
        "kind": kind,
        "hook": spec.hook if spec else "graftkit_commands",
        "scaffold": spec.scaffold if spec else (),
        "file": kind.replace("-", "_"),
        "version": __version__,
    }
    with new_folder(project) as folder:
        for path, template in _layout(values).items():
            target = folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_render(template, values), encoding="utf-8")
    return project


def _layout(values: Mapping[str, Any]) -> dict[str, str]:
    """Returns each file's path in the project and the template that it is written from."""
    module = values["module"]
    layout = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        "LICENSE": "LICENSE",
        ".github/workflows/ci.yml": "ci.yml",
        ".github/workflows/publish.yml": "publish.yml",
        f"{module}/__init__.py": "command.init.py" if values["kind"] == COMMAND else "init.py",
        f"{module}/{values['file']}.py": f"{values['kind']}.py",
        f"tests/test_{values['name'].replace('-', '_')}.py": f"{values['kind']}.test.py",
    }
    return layout | {f"{module}/{part}.py": f"{values['kind']}.{part}.py" for part in values["scaffold"]}


def _render(template: str, values: Mapping[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    source = TEMPLATES.joinpath(f"{template}.jinja").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    return environment.from_string(source).render(values)
