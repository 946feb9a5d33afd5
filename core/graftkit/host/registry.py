"""Selects the provider that a name means."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING, Any

from graftkit.errors import PluginError, ProviderError
from graftkit.host.records import FAILURES, PluginRecord, RegisteredProvider
from graftkit.interfaces.kinds import Kind
from graftkit.interfaces.provider import Provider, import_target
from graftkit.suggest import known_names

if TYPE_CHECKING:
    from graftkit.interfaces.config import ProviderConfig

__all__ = ["BUILT_IN", "Registry"]

BUILT_IN = "graftkit"
"""The distribution whose bare names are reserved."""


class Registry:
    """Every provider that the active plugins offer.

    A bare name means the built-in of that name, or else the one third party's provider of it; `distribution:name`
    always means exactly one; `package.module:Class` names a class directly.
    """

    def __init__(self, plugins: list[PluginRecord]) -> None:
        self._plugins = plugins
        self._offers: list[RegisteredProvider] = []

    def extend(self, offers: Iterable[RegisteredProvider]) -> None:
        """Adds what one plugin offers."""
        self._offers.extend(offers)

    def offers(self, kind: Kind | None = None) -> list[RegisteredProvider]:
        """Returns the providers of one kind, or all, in the order of registration."""
        return [offer for offer in self._offers if kind in (None, offer.kind)]

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
        offer = self._find(kind, name, where)
        self._check_requirements(offer, where)
        return offer

    def _find(self, kind: Kind, name: str, where: str) -> RegisteredProvider:
        candidates = self.offers(kind)
        qualified = [offer for offer in candidates if offer.qualified_name == name]
        if qualified:
            return qualified[0]
        if ":" in name and "." in name.partition(":")[0]:
            return _direct(kind, name, where)
        named = [offer for offer in candidates if offer.provider.name == name]
        built_in = [offer for offer in named if offer.plugin.distribution == BUILT_IN]
        if built_in or len(named) == 1:
            return (built_in or named)[0]
        if named:
            raise self._ambiguous(kind, name, named, where)
        raise self._unknown(kind, name, candidates, where)

    def _ambiguous(self, kind: Kind, name: str, named: list[RegisteredProvider], where: str) -> ProviderError:
        labels = " and ".join(offer.plugin.label for offer in named)
        choices = " or ".join(f"'{offer.qualified_name}'" for offer in named)
        return ProviderError(
            f"the {kind} name '{name}' is offered by {labels}", where=where, hint=f"Say which: {choices}."
        )

    def _unknown(self, kind: Kind, name: str, candidates: list[RegisteredProvider], where: str) -> ProviderError:
        names = sorted({offer.provider.name for offer in candidates})
        hint = known_names(name, names)
        broken = [record for record in self._plugins if record.status != "active"]
        if broken:
            hint += " Not in use: " + "; ".join(f"{r.label} ({r.status}: {r.reason})" for r in broken) + "."
        return ProviderError(f"no {kind} is called '{name}'", where=where, hint=hint)

    def _check_requirements(self, offer: RegisteredProvider, where: str) -> None:
        missing = self.missing_requirements(offer.provider)
        if missing:
            raise PluginError(
                f"{offer.kind} '{offer.provider.name}' needs {', '.join(missing)}, which is not installed",
                where=where or offer.plugin.label,
                hint=offer.provider.install_hint or f"Install it: pip install {' '.join(missing)}",
            )

    @staticmethod
    def missing_requirements(provider: Provider) -> list[str]:
        """Returns the import names that the provider needs and that are not installed."""
        return [name for name in provider.requires if not _installed(name)]

    def config_class(self, offer: RegisteredProvider) -> type[ProviderConfig]:
        """Imports the class of the provider's own recipe fields.

        Raises:
            PluginError: It can't be imported, or is no `ProviderConfig`.
        """
        from graftkit.interfaces.config import ProviderConfig  # pydantic: listing plugins need not wait for it

        if not offer.provider.config:
            return ProviderConfig
        found = _import(offer, offer.provider.config)
        if not (isinstance(found, type) and issubclass(found, ProviderConfig)):
            raise PluginError(f"{offer.provider.config} is no ProviderConfig", where=offer.plugin.label)
        return found

    def create(self, offer: RegisteredProvider, config: ProviderConfig | None = None) -> Any:
        """Imports the provider's class and makes an instance.

        Raises:
            PluginError: It can't be imported or made.
        """
        target = _import(offer, offer.provider.target)
        try:
            return target(config) if offer.provider.config else target()
        except FAILURES as error:
            raise PluginError(
                f"{offer.kind} '{offer.provider.name}' could not be made: {type(error).__name__}: {error}",
                where=offer.plugin.label,
            ) from error


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
    try:
        config = getattr(import_target(name), "config_class", None)
        target = f"{config.__module__}:{config.__qualname__}" if isinstance(config, type) else ""
        provider = Provider(name="direct", target=name, config=target)
    except FAILURES as error:
        raise ProviderError(f"'{name}' can't be used: {type(error).__name__}: {error}", where=where) from error
    return RegisteredProvider(kind, provider, PluginRecord(name=name, distribution="", version="", value=name))


def _import(offer: RegisteredProvider, target: str) -> Any:
    try:
        return import_target(target)
    except FAILURES as error:
        raise PluginError(
            f"{offer.kind} '{offer.provider.name}' can't be imported: {type(error).__name__}: {error}",
            where=offer.plugin.label,
            hint=f"Its target is {target}.",
        ) from error
