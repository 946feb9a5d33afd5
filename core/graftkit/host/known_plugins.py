"""The list of plugins that graftkit carries: which distribution offers a provider that is not installed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from graftkit.interfaces.kinds import Kind

__all__ = ["KnownPlugin", "how_to_install", "known_plugins"]


@dataclass(frozen=True, slots=True)
class KnownPlugin:
    """A plugin of the list.

    Attributes:
        distribution: Its distribution.
        install: What pip is given. A name only where the index has the project: nobody else may publish under it.
        where: Where pip is given that, or "" for anywhere.
        summary: What it is, in a few words.
        providers: The names of its providers, by kind.
    """

    distribution: str
    install: str
    where: str
    summary: str
    providers: Mapping[Kind, Sequence[str]]


@cache
def known_plugins() -> tuple[KnownPlugin, ...]:
    """Returns the list, as `known_plugins.json` beside this file has it."""
    text = files("graftkit.host").joinpath("known_plugins.json").read_text(encoding="utf-8")
    return tuple(KnownPlugin(**entry) for entry in json.loads(text))


def how_to_install(kind: Kind, name: str) -> str:
    """Returns how a provider of that name is installed, as a hint's sentence; "" where the list has none.

    Args:
        kind: What is wanted.
        name: What a recipe calls it, with its distribution or without.
    """
    distribution, _, bare = name.rpartition(":")
    for plugin in known_plugins():
        if bare in plugin.providers.get(kind, ()) and distribution in ("", plugin.distribution):
            place = f" {plugin.where}" if plugin.where else ""
            return f"{plugin.distribution} offers it: pip install {plugin.install}{place}. "
    return ""
