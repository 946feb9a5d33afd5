"""The recipe's JSON Schema, with every installed provider's own fields in it."""

from __future__ import annotations

from typing import Any

from graftkit.errors import PluginError
from graftkit.host.host import PluginHost
from graftkit.interfaces.provider import Kind
from graftkit.recipe.schema import AdapterUse, ExportUse, Recipe, Use

__all__ = ["recipe_schema"]

_SECTIONS: dict[Kind, type[Use]] = {"initializer": Use, "quantizer": Use, "adapter": AdapterUse, "exporter": ExportUse}


def recipe_schema(host: PluginHost) -> dict[str, Any]:
    """Returns a JSON Schema (draft 2020-12) of recipes."""
    schema = Recipe.model_json_schema()
    properties = schema["properties"]
    properties["model"] = _or_word(properties["model"])
    properties["quantizer"] = _choices(host, "quantizer")
    properties["adapter"] = _choices(host, "adapter")
    export = _choices(host, "exporter")
    properties["export"] = {"anyOf": [export, {"type": "array", "items": export}]}
    data = schema["$defs"]["DataSection"]["properties"]
    data["train"] = _or_word(data["train"])
    _tokenizer(schema["$defs"], host)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "graftkit recipe", **schema}


def _tokenizer(definitions: dict[str, Any], host: PluginHost) -> None:
    """Fills in what may be said in the section on the vocabulary."""
    section = definitions["TokenizerSection"]["properties"]
    section["embedding_init"] = {
        **_choices(host, "initializer"),
        "default": "mean",
        "description": section["embedding_init"]["description"],
    }
    section["replace"] = _or_word(section["replace"])
    for name in ("ExtendSection", "TrainUse"):
        properties = definitions[name]["properties"]
        properties["corpus"] = _or_word(properties["corpus"])


def _or_word(found: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "string"}, found]}


def _choices(host: PluginHost, kind: Kind) -> dict[str, Any]:
    """Returns the schema of a section that names a provider: the name alone, or with that provider's fields."""
    offers = host.registry.offers(kind)
    names = sorted({offer.provider.name for offer in offers})
    forms: list[dict[str, Any]] = [{"type": "string", "examples": names}]
    for offer in offers:
        try:
            config = host.registry.config_class(offer).model_json_schema()
        except PluginError:
            continue
        section = _SECTIONS[kind].model_json_schema()
        use = {"enum": [offer.provider.name, offer.qualified_name], "description": offer.provider.summary}
        forms.append(
            {
                "type": "object",
                "properties": {**section["properties"], **config.get("properties", {}), "use": use},
                "required": ["use", *config.get("required", [])],
                "additionalProperties": False,
            }
        )
    return {"anyOf": forms}
