"""Which callbacks follow a run, and with what settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftkit.errors import GraftkitError, ProviderError, RecipeError
from graftkit.host.host import PluginHost
from graftkit.host.known_plugins import how_to_install
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.config import ProviderConfig
from graftkit.recipe.choice import Choice, judge
from graftkit.recipe.document import Document, KeyPath
from graftkit.suggest import known_names

__all__ = ["bind_callbacks", "follows_unasked"]


def bind_callbacks(
    settings: Mapping[str, Mapping[str, Any]],
    document: Document,
    host: PluginHost,
    absent: dict[KeyPath, GraftkitError] | None = None,
) -> list[Choice]:
    """Returns the callbacks of a run: those that the recipe gives settings, and others that need none.

    Settings of a plugin that was asked to be left out are not read.

    Args:
        settings: What the recipe says under `plugins`, by name.
        document: Where.
        host: The plugins.
        absent: Where given: takes in what is not installed, each with the error that says so, which is not raised then.

    Raises:
        RecipeError: A name that no callback has, or a setting that it refuses.
        ProviderError: Several plugins offer the name.
        PluginError: A callback's requirement is not installed, or its config model can't be imported.
    """
    found: list[Choice] = []
    for name, said in settings.items():
        if host.leaves_out(name):
            continue
        path = ("plugins", name)
        try:
            registered = _named(name, document.where(path), host)
            model = host.registry.config_class(registered)
        except GraftkitError as error:
            if absent is None:
                raise
            absent[path] = error
            continue
        found.append(Choice(name, registered, judge(registered, model, said, document, path)))
    chosen = [choice.registered for choice in found]
    for registered in host.registry.providers("callback"):
        if registered not in chosen and (config := follows_unasked(registered, host)) is not None:
            found.append(Choice(registered.qualified_name, registered, config))
    return found


def _named(name: str, where: str, host: PluginHost) -> RegisteredProvider:
    """Returns the callback of a name.

    Raises:
        RecipeError: There is none.
        ProviderError: Several plugins offer the name.
        PluginError: Its requirement is not installed.
    """
    try:
        return host.registry.resolve("callback", name, where=where)
    except ProviderError as error:
        if any(each.provider.name == name for each in host.registry.providers("callback")):
            raise
        known = ["disable", *(each.provider.name for each in host.registry.providers("callback"))]
        broken = error.hint.partition(" Not in use: ")
        hint = how_to_install("callback", name) + known_names(name, known) + "".join(broken[1:])
        raise RecipeError(
            f"unknown key 'plugins.{name}': no callback of an installed plugin is called that",
            where=error.where,
            hint=hint,
        ) from None


def follows_unasked(registered: RegisteredProvider, host: PluginHost) -> ProviderConfig | None:
    """Returns the settings with which a callback follows runs whose recipes don't name it.

    Returns:
        Its defaults; None where a field has none, or a module that it requires is not installed.

    Raises:
        PluginError: Its config model can't be imported.
    """
    model = host.registry.config_class(registered)
    required = any(field.is_required() for field in model.model_fields.values())
    if required or host.registry.missing_requirements(registered.provider):
        return None
    return judge(registered, model, {}, Document({}, "defaults"), ())
