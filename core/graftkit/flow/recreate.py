"""Makes the providers that a manifest names. A file from elsewhere must not choose what code runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from graftkit.errors import PluginError
from graftkit.host.host import PluginHost

__all__ = ["InstalledProviders", "MakeProvider", "make_provider"]

MakeProvider = Callable[[Mapping[str, Any]], Any]


def make_provider(facts: Mapping[str, Any]) -> Any:
    """Makes a provider from what a manifest of this very run says of it."""
    module, _, name = facts["target"].partition(":")
    target = getattr(importlib.import_module(module), name)
    if not facts.get("config_class"):
        return target()
    module, _, name = facts["config_class"].partition(":")
    config = getattr(importlib.import_module(module), name)
    return target(config.model_validate(facts["config"]))


class InstalledProviders:
    """Makes only what an installed plugin offers, whatever a manifest says.

    Args:
        host: The plugins.
    """

    def __init__(self, host: PluginHost) -> None:
        self._offered = {(offer.provider.target, offer.provider.config) for offer in host.registry.offers()}

    def make(self, facts: Mapping[str, Any]) -> Any:
        """Makes a provider.

        Raises:
            PluginError: No installed plugin offers the class that the manifest names.
        """
        if not isinstance(facts, Mapping):
            raise PluginError(f"the manifest is damaged: it names a provider as {facts!r:.60}")
        if (str(facts.get("target")), str(facts.get("config_class", ""))) not in self._offered:
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
