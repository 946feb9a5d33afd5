"""Makes the providers that a manifest names. A file from elsewhere must not choose what code runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from graftkit.articles import with_article
from graftkit.errors import GraftkitError, PluginCallError, PluginError
from graftkit.host.guard import brief, guarded, guarded_class, is_stop
from graftkit.host.host import PluginHost
from graftkit.host.records import PluginRecord, RegisteredProvider
from graftkit.interfaces.kinds import Kind
from graftkit.interfaces.provider import import_target

__all__ = ["InstalledProviders", "MakeProvider", "ProvidersOfThisRun", "make_provider", "plugin_of"]

MakeProvider = Callable[[Kind, Mapping[str, Any]], Any]
"""Makes a provider of a kind from what a manifest says of it."""


_plugins: dict[tuple[str, str], PluginRecord] = {}
"""The plugins of providers that are made for nobody who keeps their records, by label and what they name."""


def make_provider(kind: Kind, facts: Mapping[str, Any], plugin: PluginRecord | None = None) -> Any:
    """Makes a provider from what a manifest of this very run says of it; its public methods are guarded.

    Args:
        kind: What it is.
        facts: What the manifest says.
        plugin: What keeps what the provider warns of, as `plugin_of` gives it.
    """
    if plugin is None:
        found = plugin_of(facts)
        plugin = _plugins.setdefault((found.label, found.value), found)
    made = _made(facts, plugin)
    key = (type(made), kind)
    with suppress(Exception):  # an instance whose class can't be another keeps its own
        if key not in plugin.classes:
            plugin.classes[key] = guarded_class(type(made), plugin, kind, plugin.name)
        object.__setattr__(made, "__class__", plugin.classes[key])
    return made


def plugin_of(facts: Mapping[str, Any]) -> PluginRecord:
    """Returns a record of the plugin that a manifest says a provider is of."""
    name, distribution, version, target = (
        str(facts.get(key, "")) for key in ("name", "distribution", "version", "target")
    )
    return PluginRecord((distribution and name) or target, distribution, version, target)


def _made(facts: Mapping[str, Any], plugin: PluginRecord) -> Any:
    what = f"the making of '{facts.get('name', facts['target'])}'"
    try:
        with guarded(plugin, what):
            target = import_target(facts["target"])
            if not facts.get("config_class"):
                return target()
            return target(import_target(facts["config_class"]).model_validate(facts["config"]))
    except Exception:
        raise
    except BaseException as error:
        if is_stop(error):
            raise
        raise PluginCallError(f"{what} raised {brief(error)}", where=plugin.label) from error


class ProvidersOfThisRun:
    """Makes whatever a manifest that this very run has written names."""

    def __init__(self) -> None:
        self._plugins: dict[str, PluginRecord] = {}

    def make(self, kind: Kind, facts: Mapping[str, Any]) -> Any:
        """Makes a provider, whatever its kind."""
        plugin = plugin_of(facts)
        return make_provider(kind, facts, self._plugins.setdefault(plugin.label, plugin))

    @property
    def warnings(self) -> list[str]:
        """What they warned of: each names its provider and version."""
        return [warning for plugin in self._plugins.values() for warning in plugin.warnings]


class InstalledProviders:
    """Makes only what an installed plugin offers, whatever a manifest says.

    Args:
        host: The plugins.
    """

    def __init__(self, host: PluginHost) -> None:
        providers = host.registry.providers()
        self._targets = {
            (registered.kind, registered.provider.target, registered.provider.config) for registered in providers
        }
        # A provider that has got fields since then is made with their defaults.
        self._targets |= {(registered.kind, registered.provider.target, "") for registered in providers}
        self._providers = {(registered.kind, registered.provider.target): registered for registered in providers}
        self._registry = host.registry
        self._host = host

    @property
    def warnings(self) -> list[str]:
        """What plugins warned of: each names its plugin and version."""
        return self._host.warnings

    def make(self, kind: Kind, facts: Mapping[str, Any]) -> Any:
        """Makes a provider.

        Args:
            kind: What it has to be.
            facts: What a manifest says of it.

        Raises:
            PluginError: No installed plugin offers the class that the manifest names, or it is of another kind; or it
                can't be made as the manifest says.
            PluginCallError: Its plugin's code raised something else, such as an import of what is not installed.
        """
        registered = self.registered(kind, facts)
        try:
            made = _made(facts, registered.plugin)
        except (KeyError, TypeError, ValueError) as error:  # pydantic's errors are ValueErrors
            reason = " ".join(str(error).split())[:300]
            raise PluginError(
                f"the manifest is damaged: {facts['target']} can't be made as it says: {reason}"
            ) from None
        except (GraftkitError, MemoryError):
            raise
        except Exception as error:
            what = f"the making of '{facts.get('name', facts['target'])}'"
            raise PluginCallError(f"{what} raised {brief(error)}", where=registered.plugin.label) from error
        self._registry.guard(made, registered)
        return made

    def registered(self, kind: Kind, facts: Mapping[str, Any]) -> RegisteredProvider:
        """Finds the installed provider that a manifest names.

        Args:
            kind: What it has to be.
            facts: What a manifest says of it.

        Raises:
            PluginError: No installed plugin offers the class that the manifest names, or it is of another kind.
        """
        if not isinstance(facts, Mapping):
            raise PluginError(f"the manifest is damaged: it names a provider as {facts!r:.60}")
        named = (str(facts.get("target")), str(facts.get("config_class", "")))
        if (kind, *named) not in self._targets:
            others = sorted(other for other, *offered in self._targets if tuple(offered) == named)
            if others:
                found = with_article(others[0])
                raise PluginError(f"the manifest is damaged: it names {named[0]} as its {kind}, which is {found}")
            raise PluginError(
                f"no installed plugin offers {facts.get('target')}, which the manifest names",
                hint=f"It says that it came from {facts.get('distribution')} {facts.get('version')}: install that.",
            )
        return self._providers[kind, named[0]]
