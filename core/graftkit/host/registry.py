"""Selects the provider that a name means."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib import import_module
from importlib.machinery import PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from graftkit.errors import PluginError, ProviderError
from graftkit.host.guard import brief, guarded, guarded_class, is_stop, remember
from graftkit.host.imported import is_half
from graftkit.host.known_plugins import how_to_install
from graftkit.host.records import BUILT_IN, PluginRecord, RegisteredProvider
from graftkit.host.time_limit import time_limit
from graftkit.interfaces.kinds import KINDS, Kind
from graftkit.interfaces.provider import Provider, import_target
from graftkit.suggest import known_names

if TYPE_CHECKING:
    from graftkit.interfaces.config import ProviderConfig

__all__ = ["BUILT_IN", "Registry"]


class Registry:
    """Every provider that the active plugins offer.

    A bare name means the built-in of that name, or else the one third party's provider of it; `distribution:name`
    always means exactly one; `package.module:Class` names a class directly.
    """

    def __init__(self, plugins: list[PluginRecord]) -> None:
        self._plugins = plugins
        self._providers: list[RegisteredProvider] = []
        self._direct: dict[tuple[Kind, str], RegisteredProvider] = {}
        self._guarded: dict[tuple[type, str], type] = {}

    @property
    def plugins(self) -> list[PluginRecord]:
        """Every plugin, and a record of its own for each class that was named directly."""
        return [*self._plugins, *(registered.plugin for registered in self._direct.values())]

    def extend(self, providers: Iterable[RegisteredProvider]) -> None:
        """Adds what one plugin offers."""
        self._providers.extend(providers)

    def providers(self, kind: Kind | None = None) -> list[RegisteredProvider]:
        """Returns the providers of one kind, or all, in the order of registration."""
        return [registered for registered in self._providers if kind in (None, registered.kind)]

    def providers_in_turn(self, kind: Kind) -> tuple[list[RegisteredProvider], list[RegisteredProvider]]:
        """Returns the providers of one kind as they are asked who takes a file: built-in ones, then third parties'."""
        providers = self.providers(kind)
        built_in = [registered for registered in providers if registered.plugin.distribution == BUILT_IN]
        return built_in, [registered for registered in providers if registered.plugin.distribution != BUILT_IN]

    def resolve(self, kind: Kind, name: str, *, where: str = "") -> RegisteredProvider:
        """Finds the provider that a name means.

        Args:
            kind: What is wanted.
            name: `name`, `distribution:name` or `package.module:Class`.
            where: The recipe's place, for the error.

        Raises:
            ProviderError: Nobody offers that name, or several third parties do.
            PluginError: The provider's requirement is not installed.
        """
        registered = self._find(kind, name, where)
        self._check_requirements(registered, where)
        return registered

    def _find(self, kind: Kind, name: str, where: str) -> RegisteredProvider:
        candidates = self.providers(kind)
        qualified = [registered for registered in candidates if registered.qualified_name == name]
        if qualified:
            return qualified[0]
        if ":" in name and "." in name.partition(":")[0]:
            if (kind, name) not in self._direct:
                self._direct[kind, name] = _direct(kind, name, where)
            return self._direct[kind, name]
        named = [registered for registered in candidates if registered.provider.name == name]
        built_in = [registered for registered in named if registered.plugin.distribution == BUILT_IN]
        if built_in or len(named) == 1:
            return (built_in or named)[0]
        if named:
            raise self._ambiguous(kind, name, named, where)
        raise self._unknown(kind, name, candidates, where)

    def _ambiguous(self, kind: Kind, name: str, named: list[RegisteredProvider], where: str) -> ProviderError:
        labels = " and ".join(registered.plugin.label for registered in named)
        choices = " or ".join(f"'{registered.qualified_name}'" for registered in named)
        return ProviderError(
            f"the {kind} name '{name}' is offered by {labels}", where=where, hint=f"Say which: {choices}."
        )

    def _unknown(self, kind: Kind, name: str, candidates: list[RegisteredProvider], where: str) -> ProviderError:
        names = sorted({registered.provider.name for registered in candidates})
        offered = how_to_install(kind, name)
        hint = offered + known_names(name, names)
        if ":" in name and not offered:
            hint = f"Before the colon stands a distribution, or a module in a package: package.module:Class. {hint}"
        broken = [record for record in self._plugins if record.status != "active"]
        if broken:
            hint += " Not in use: " + "; ".join(f"{r.label} ({r.status}: {r.reason})" for r in broken) + "."
        return ProviderError(f"no {kind} is called '{name}'", where=where, hint=hint)

    def _check_requirements(self, registered: RegisteredProvider, where: str) -> None:
        missing = self.missing_requirements(registered.provider)
        if missing:
            raise PluginError(
                f"{registered.kind} '{registered.provider.name}' needs {', '.join(missing)}, which is not installed",
                where=where or registered.plugin.label,
                hint=registered.provider.install_hint or f"Install it: pip install {' '.join(missing)}",
            )

    @staticmethod
    def missing_requirements(provider: Provider) -> list[str]:
        """Returns the import names that the provider needs and that are not installed."""
        return [name for name in provider.requires if not _installed(name)]

    def config_class(self, registered: RegisteredProvider) -> type[ProviderConfig]:
        """Imports the class of the provider's own recipe fields.

        Raises:
            PluginError: It can't be imported, or does not derive from what its kind's does.
        """
        module, _, name = KINDS[registered.kind].config.partition(":")
        base: type[ProviderConfig] = getattr(import_module(module), name)  # pydantic: listing plugins need not wait
        if not registered.provider.config:
            return base
        found = _import(registered, registered.provider.config)
        if not (isinstance(found, type) and issubclass(found, base)):
            raise PluginError(f"{registered.provider.config} is no {name}", where=registered.plugin.label)
        return found

    def create(self, registered: RegisteredProvider, config: ProviderConfig | None = None) -> Any:
        """Imports the provider's class and makes an instance with a copy of its fields; its public methods are guarded.

        Raises:
            PluginError: It can't be imported or made.
        """
        made = self.create_unguarded(registered, config)
        self.guard(made, registered)
        return made

    def create_unguarded(self, registered: RegisteredProvider, config: ProviderConfig | None = None) -> Any:
        """Does what `create` does, for whoever looks at what the methods do to the process: nothing is put back.

        Raises:
            PluginError: It can't be imported or made.
        """
        target = _import(registered, registered.provider.target)
        what = f"{registered.kind} '{registered.provider.name}'"
        try:
            with guarded(registered.plugin, f"the making of its {what}"):
                own = config and config.model_copy(deep=True)
                return target(own) if registered.provider.config else target()
        except BaseException as error:
            if is_stop(error):
                raise
            raise PluginError(f"{what} could not be made: {brief(error)}", where=registered.plugin.label) from error

    def guard(self, made: Any, registered: RegisteredProvider) -> None:
        """Has each public method of a provider's instance called under guard: see `graftkit.host.guard`."""
        key = (type(made), registered.qualified_name)
        with suppress(Exception):  # an instance whose class can't be another keeps its own
            if key not in self._guarded:
                name = registered.provider.name
                self._guarded[key] = guarded_class(type(made), registered.plugin, registered.kind, name)
            object.__setattr__(made, "__class__", self._guarded[key])  # of a frozen dataclass, too


def _installed(name: str) -> bool:
    """Looks for a module without importing any, not even the packages that it lies in."""
    module, *parts = name.split(".")
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # an empty name, or a module made in memory, which has no spec
        return name in sys.modules
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return False
        module = f"{module}.{part}"
        spec = PathFinder.find_spec(module, spec.submodule_search_locations) if part else None
    return spec is not None


def _direct(kind: Kind, name: str, where: str) -> RegisteredProvider:
    plugin = PluginRecord(name=name, distribution="", version="", value=name)
    remember(name.partition(":")[0], plugin)
    try:
        with guarded(plugin, "its import"):
            config = getattr(import_target(name), "config_class", None)
        target = f"{config.__module__}:{config.__qualname__}" if isinstance(config, type) else ""
        provider = Provider(name="direct", target=name, config=target)
    except BaseException as error:
        if is_stop(error):
            raise
        hint = _WHERE_MODULES_ARE if isinstance(error, ModuleNotFoundError) else ""
        raise ProviderError(f"'{name}' can't be used: {brief(error)}", where=where, hint=hint) from error
    return RegisteredProvider(kind, provider, plugin)


_WHERE_MODULES_ARE = "Install what has that module, or name its folder in the variable PYTHONPATH."

_IMPORT_SECONDS = 60.0
"""After how long an import of a provider's class, which may import torch, is named on standard error."""


def _already_imported(target: str) -> Any:
    """Returns what is there without any code of its module's being run, or None: then nothing can be changed either."""
    name, _, attribute = target.partition(":")
    module = sys.modules.get(name)
    return vars(module).get(attribute) if isinstance(module, ModuleType) and not is_half(module) else None


def _import(registered: RegisteredProvider, target: str) -> Any:
    what, plugin = f"{registered.kind} '{registered.provider.name}'", registered.plugin
    advice = "It goes on: stop it with Ctrl-C if it hangs."
    limit = time_limit(plugin.label, f"the import of {target}", _IMPORT_SECONDS, advice)
    remember(target.partition(":")[0], plugin)
    if (known := _already_imported(target)) is not None:
        return known
    try:
        with limit, guarded(plugin, f"the import of its {what}"):
            return import_target(target)
    except BaseException as error:
        if is_stop(error):
            raise
        raise PluginError(
            f"{what} can't be imported: {brief(error)}", where=plugin.label, hint=f"Its target is {target}."
        ) from error
