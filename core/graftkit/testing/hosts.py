"""A host that sees only what it is given, whatever else is installed."""

from __future__ import annotations

from graftkit.host.discovery import discover
from graftkit.host.host import PluginHost
from graftkit.host.registry import BUILT_IN

__all__ = ["isolated_host"]


def isolated_host(*plugins: object) -> PluginHost:
    """Returns a host with the built-in plugins and these ones, and with discovery blocked.

    Args:
        plugins: Modules or objects with hook implementations.

    Raises:
        PluginError: One of them fails.
    """
    built_in = [entry.load() for record, entry in discover() if record.distribution == BUILT_IN]
    return PluginHost(autoload=False, plugins=[*built_in, *plugins], strict=True)
