"""Makes the providers that a manifest names. A file from elsewhere must not choose what code runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from graftkit.errors import PluginError
from graftkit.host.guard import guarded, guarded_class
from graftkit.host.host import PluginHost
from graftkit.host.records import PluginRecord
from graftkit.interfaces.kinds import Kind
from graftkit.interfaces.provider import import_target

__all__ = ["InstalledProviders", "MakeProvider", "make_provider"]

MakeProvider = Callable[[Kind, Mapping[str, Any]], Any]
"""Makes a provider of a kind from what a manifest says of it."""


def make_provider(facts: Mapping[str, Any]) -> Any:
    """Makes a provider from what a manifest of this very run says of it; its public methods are guarded."""
    name = str(facts.get("name", facts["target"]))
    plugin = PluginRecord(name, str(facts.get("distribution", "")), str(facts.get("version", "")), facts["target"])
    with guarded(plugin, f"the making of '{name}'"):
        target = import_target(facts["target"])
        if not facts.get("config_class"):
            made = target()
        else:
            made = target(import_target(facts["config_class"]).model_validate(facts["config"]))
    with suppress(Exception):  # an instance whose class can't be another keeps its own
        made.__class__ = guarded_class(type(made), plugin, f"provider '{name}'")
    return made


class InstalledProviders:
    """Makes only what an installed plugin offers, whatever a manifest says.

    Args:
        host: The plugins.
    """

    def __init__(self, host: PluginHost) -> None:
        offers = host.registry.offers()
        self._offered = {(offer.kind, offer.provider.target, offer.provider.config) for offer in offers}
        # A provider that has got fields since then is made with their defaults.
        self._offered |= {(offer.kind, offer.provider.target, "") for offer in offers}

    def make(self, kind: Kind, facts: Mapping[str, Any]) -> Any:
        """Makes a provider.

        Args:
            kind: What it has to be.
            facts: What a manifest says of it.

        Raises:
            PluginError: No installed plugin offers the class that the manifest names, or it is of another kind.
        """
        if not isinstance(facts, Mapping):
            raise PluginError(f"the manifest is damaged: it names a provider as {facts!r:.60}")
        named = (str(facts.get("target")), str(facts.get("config_class", "")))
        if (kind, *named) not in self._offered:
            others = sorted(other for other, *offered in self._offered if tuple(offered) == named)
            if others:
                raise PluginError(f"the manifest is damaged: it names {named[0]} as its {kind}, which is a {others[0]}")
            raise PluginError(
                f"no installed plugin offers {facts.get('target')}, which the manifest names",
                hint=f"It says that it came from {facts.get('distribution')} {facts.get('version')}: install that.",
            )
        try:
            return make_provider(facts)
        except (KeyError, TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
            reason = " ".join(str(error).split())[:300]
            raise PluginError(
                f"the manifest is damaged: {facts['target']} can't be made as it says: {reason}"
            ) from None
