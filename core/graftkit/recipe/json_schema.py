"""The recipe's JSON Schema, with every installed provider's own fields in it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from graftkit.errors import PluginError
from graftkit.host.host import PluginHost
from graftkit.interfaces.kinds import Kind, Section
from graftkit.recipe.schema.recipe import Recipe
from graftkit.recipe.sections import chosen_by_name, chosen_by_reference, model_of

__all__ = ["recipe_schema"]

_ONE_OR_MORE = (("ExtendSection", "corpus"), ("TrainVocabularySection", "corpus"))
"""Lists of files of which a single one may be said as a word, by definition and key."""

_FILES = (("DataSection", "train"), ("DataSection", "holdout"))
"""Lists of files, each of which may be said as a word, and a single one without a list, by definition and key."""


def recipe_schema(host: PluginHost) -> dict[str, Any]:
    """Returns a JSON Schema (draft 2020-12) of recipes."""
    schema = Recipe.model_json_schema()
    placed = set()
    for kind, section in chosen_by_name():
        where = (model_of(Recipe, section.path[:-1]) if section.path[1:] else Recipe, section.path[-1])
        if section.short_form == "use" and where not in placed:
            placed.add(where)
            properties, key = _place(schema, section)
            properties[key] = _use(properties[key], _choices(host, kind, model_of(Recipe, section.path)))
    for section in chosen_by_reference():
        properties, key = _place(schema, section)
        properties[key] = _or_word(properties[key])
    for definition, key in _ONE_OR_MORE:
        properties = schema["$defs"][definition]["properties"]
        properties[key] = _or_word(properties[key])
    properties = schema["$defs"]["DataSection"]["properties"]
    properties["chat_template"] = _or_word(properties["chat_template"])
    section = schema["$defs"]["PluginsSection"]
    section["properties"] |= _settings(host)
    section["additionalProperties"] = {"type": "object"}  # distribution:name, and module:Class
    for definition, key in _FILES:
        _files(schema["$defs"][definition]["properties"][key])
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "graftkit recipe", **schema}


def _place(schema: dict[str, Any], section: Section) -> tuple[dict[str, Any], str]:
    """Returns the properties that a section is among, and its key there."""
    *above, key = section.path
    within = schema["$defs"][model_of(Recipe, tuple(above)).__name__] if above else schema
    return within["properties"], key


def _use(found: dict[str, Any], choices: dict[str, Any]) -> dict[str, Any]:
    """Returns what a section may say, with its description, and its default as a word."""
    form = {"anyOf": [choices, {"type": "array", "items": choices}]} if found.get("type") == "array" else choices
    default = found.get("default")
    word = {"default": default["use"]} if isinstance(default, dict) else {}
    return {**form, **word, "description": found["description"]}


def _files(found: dict[str, Any]) -> None:
    """Lets files be a list of paths and mappings, or a single one; whatever else the key may be stays."""
    forms = found.pop("anyOf", None) or found.pop("oneOf", None) or [{"type": "array", "items": found.pop("items")}]
    found.pop("type", None)
    entry = next(form["items"] for form in forms if form.get("type") == "array")
    others = [form for form in forms if form.get("type") != "array"]
    one = {"anyOf": [{"type": "string"}, entry]}
    found["anyOf"] = [*others, {"type": "string"}, entry, {"type": "array", "items": one, "minItems": 1}]


def _or_word(found: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "string"}, found]}


def _settings(host: PluginHost) -> dict[str, Any]:
    """Returns the schema of each callback's settings, by its name."""
    found = {}
    for registered in host.registry.providers("callback"):
        try:
            config = host.registry.config_class(registered).model_json_schema()
        except PluginError:
            continue
        found[registered.provider.name] = {**config, "description": registered.provider.summary}
    return found


def _choices(host: PluginHost, kind: Kind, section: type[BaseModel]) -> dict[str, Any]:
    """Returns the schema of a section that names a provider: the name alone, or with that provider's fields."""
    providers = host.registry.providers(kind)
    names = sorted({registered.provider.name for registered in providers})
    forms: list[dict[str, Any]] = [{"type": "string", "examples": names}]
    use_required = ["use"] if section.model_fields["use"].is_required() else []
    for registered in providers:
        try:
            config = host.registry.config_class(registered).model_json_schema()
        except PluginError:
            continue
        use = {
            "enum": [registered.provider.name, registered.qualified_name],
            "description": registered.provider.summary,
        }
        common = section.model_json_schema().get("properties", {})
        forms.append(
            {
                "type": "object",
                "properties": {**common, **config.get("properties", {}), "use": use},
                "required": [*use_required, *config.get("required", [])],
                "additionalProperties": False,
            }
        )
    return {"anyOf": forms}
