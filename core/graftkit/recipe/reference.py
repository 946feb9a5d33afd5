"""Every key of a recipe as Markdown tables, from the schema itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from graftkit.host.host import PluginHost
from graftkit.recipe.schema.data import ChatTemplateSection, DataSection, DatasetSection
from graftkit.recipe.schema.evaluation import EvaluationSection
from graftkit.recipe.schema.providers import ProviderSection
from graftkit.recipe.schema.recipe import PluginsSection, Recipe
from graftkit.recipe.schema.tokenizer import ExtendSection, ReplaceSection, TokenizerSection, TrainVocabularySection
from graftkit.recipe.schema.training import MemorySection, TrainingSection
from graftkit.recipe.sections import chosen_by_name, model_of

__all__ = ["recipe_reference"]

_SECTIONS: dict[str, type[BaseModel]] = {
    "tokenizer": TokenizerSection,
    "tokenizer.extend": ExtendSection,
    "tokenizer.train": TrainVocabularySection,
    "tokenizer.replace": ReplaceSection,
    "data": DataSection,
    "data.train": DatasetSection,
    "data.chat_template": ChatTemplateSection,
    "training": TrainingSection,
    "memory": MemorySection,
    "evaluation": EvaluationSection,
    "plugins": PluginsSection,
}


def recipe_reference(host: PluginHost) -> str:
    """Returns a heading and a table for the recipe, each section, and each provider that has fields of its own."""
    parts = [_table("the recipe itself", Recipe)]
    parts += [_table(f"`{name}`", model) for name, model in _SECTIONS.items()]
    for kind, section in chosen_by_name():
        if section.short_form != "use":  # among `_SECTIONS`
            continue
        if section.path[:2] == ("data", "holdout"):  # files as those of `data.train`
            continue
        path, common = ".".join(section.path), model_of(Recipe, section.path)
        if common is not ProviderSection:
            parts.append(_table(f"`{path}`, whichever it is", common))
        for registered in host.registry.providers(kind):
            title = f"`{path}: {registered.provider.name}`: {registered.provider.summary}"
            parts.append(_table(title, host.registry.config_class(registered)))
    for registered in host.registry.providers("callback"):
        title = f"`plugins.{registered.provider.name}`: {registered.provider.summary}"
        parts.append(_table(title, host.registry.config_class(registered)))
    return "\n".join(parts)


def _table(title: str, model: type[BaseModel]) -> str:
    lines = [f"### {title}", ""]
    if model.model_fields:
        lines += ["| key | default | |", "|---|---|---|"]
        lines += [_row(name, field) for name, field in model.model_fields.items()]
    else:
        lines.append("No fields of its own.")
    return "\n".join([*lines, ""])


def _row(name: str, field: FieldInfo) -> str:
    chosen = callable(field.json_schema_extra)  # by the plan of a run, which the description says
    value = None if chosen else field.get_default(call_default_factory=True)
    default = "required" if field.is_required() else _shown(value)
    return f"| `{name}` | {default} | {field.description or ''} |"


def _shown(value: Any) -> str:
    if value in (None, ""):
        return ""
    if isinstance(value, ProviderSection):
        return f"`{value.use}`"
    if isinstance(value, BaseModel):  # a section, which has a table of its own
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"`[{', '.join(item.use if isinstance(item, ProviderSection) else item for item in value)}]`"
    return f"`{value}`"
