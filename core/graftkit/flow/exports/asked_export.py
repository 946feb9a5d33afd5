"""An export that is asked for by itself, as `toolkit export` does: its name, and its fields as `--set` takes them."""

from __future__ import annotations

from collections.abc import Sequence

from graftkit.errors import RecipeError
from graftkit.host.host import PluginHost
from graftkit.recipe.assignment import read_assignments
from graftkit.recipe.choice import Choice
from graftkit.recipe.options import bind_options
from graftkit.recipe.schema.providers import ExportSection

__all__ = ["asked_export"]


def asked_export(host: PluginHost, use: str, options: Sequence[str]) -> tuple[ExportSection, Choice]:
    """Finds the exporter and judges its fields; `name` is the folder's.

    Args:
        host: The plugins.
        use: The exporter's name.
        options: Its fields, each "key=value".

    Raises:
        ProviderError: There is no such exporter.
        RecipeError: It has no such field, or a field no such value.
    """
    registered = host.registry.resolve("exporter", use, where="--to")
    names = [text for text in options if text.partition("=")[0].strip() == "name"]
    config = bind_options(
        host.registry.config_class(registered), [text for text in options if text not in names], "--set"
    )
    named = read_assignments(names, "--set")
    try:
        section = ExportSection.model_validate({"use": use, **named})
    except ValueError as error:
        raise RecipeError(f"name: no folder can be called so: {named['name']!r:.60}", where="--set name") from error
    return section, Choice(use, registered, config)
