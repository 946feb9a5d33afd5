"""Finds the provider behind every name in a recipe and judges each provider's own fields. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from graftkit.errors import PluginError, ProviderError, RecipeError
from graftkit.host.host import PluginHost
from graftkit.host.records import Offer
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.provider import Kind
from graftkit.recipe.document import Document, KeyPath
from graftkit.recipe.load import LoadedRecipe, as_recipe_error
from graftkit.recipe.preset import Preset
from graftkit.recipe.schema import ExportUse, Recipe, TokenizerSection, Use

__all__ = ["BoundRecipe", "Choice", "bind"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A provider that a recipe chose, and its own fields.

    Attributes:
        use: What the recipe calls it.
        offer: The provider and its plugin.
        config: Its fields, judged.
    """

    use: str
    offer: Offer
    config: ProviderConfig

    def facts(self) -> dict[str, Any]:
        """Returns what the name resolved to, as JSON."""
        return {
            "name": self.offer.provider.name,
            "target": self.offer.provider.target,
            "config_class": self.offer.provider.config,
            "distribution": self.offer.plugin.distribution,
            "version": self.offer.plugin.version,
            "config": self.config.model_dump(mode="json"),
        }


@dataclass(frozen=True, slots=True)
class BoundRecipe:
    """A recipe whose every name has been resolved.

    Attributes:
        recipe: The recipe.
        document: Where its keys were said.
        quantizer: How weights are stored.
        adapter: What is trained.
        exports: What is written, each with its entry in the recipe.
        initializer: What the rows of new tokens start as; None where the vocabulary stays as it is.
        trainer: The backend that trains a tokenizer, where one is trained.
    """

    recipe: Recipe
    document: Document
    quantizer: Choice
    adapter: Choice
    exports: tuple[tuple[ExportUse, Choice], ...]
    initializer: Choice | None = None
    trainer: Choice | None = None

    def resolved(self) -> dict[str, Any]:
        """Returns the whole recipe with every default and preset filled in, as JSON."""
        data = self.recipe.model_dump(mode="json")
        data["quantizer"] = {"use": self.quantizer.use, **_dump(self.quantizer)}
        data["adapter"] |= _dump(self.adapter)
        for entry, (_, choice) in zip(data["export"], self.exports, strict=True):
            entry |= _dump(choice)
        if self.initializer:
            data["tokenizer"]["embedding_init"] |= _dump(self.initializer)
        if self.trainer:
            data["tokenizer"]["train"] |= _dump(self.trainer)
        return data

    def providers(self) -> dict[str, Any]:
        """Returns what each name resolved to, as JSON."""
        return {
            "quantizer": self.quantizer.facts(),
            "adapter": self.adapter.facts(),
            "exporters": [choice.facts() for _, choice in self.exports],
            **({"initializer": self.initializer.facts()} if self.initializer else {}),
        }


def bind(loaded: LoadedRecipe, host: PluginHost) -> BoundRecipe:
    """Resolves a recipe's names, after its adapter's preset has filled in what it is silent on.

    Raises:
        ProviderError: A name that nobody offers, or several do.
        PluginError: A provider that can't be used, or a preset that can't.
        RecipeError: A field that its provider does not know, or a value that it refuses.
    """
    adapter = _choose(host, "adapter", loaded.recipe.adapter, loaded.document, ("adapter",))
    if not adapter.config.preset:
        return _bind(host, loaded.recipe, loaded.document, adapter)
    preset = Preset(adapter.offer, adapter.config.preset)
    try:
        return _bind(host, *preset.fill(loaded.recipe, loaded.document), adapter)
    except (ProviderError, RecipeError) as error:
        if preset.blames(error.where):
            raise PluginError(error.message, where=error.where, hint=error.hint) from None
        raise


def _bind(host: PluginHost, recipe: Recipe, document: Document, adapter: Choice) -> BoundRecipe:
    return BoundRecipe(
        recipe=recipe,
        document=document,
        quantizer=_choose(host, "quantizer", recipe.quantizer or Use(use="none"), document, ("quantizer",)),
        adapter=adapter,
        exports=tuple(
            (entry, _choose(host, "exporter", entry, document, ("export", index)))
            for index, entry in enumerate(recipe.export)
        ),
        **_bind_tokenizer(host, recipe.tokenizer, document),
    )


def _bind_tokenizer(host: PluginHost, section: TokenizerSection | None, document: Document) -> dict[str, Choice]:
    if section is None:
        return {}
    found = {
        "initializer": _choose(host, "initializer", section.embedding_init, document, ("tokenizer", "embedding_init"))
    }
    if section.train:
        found["trainer"] = _choose(host, "tokenizer", section.train, document, ("tokenizer", "train"))
    return found


def _choose(host: PluginHost, kind: Kind, use: Use, document: Document, path: KeyPath) -> Choice:
    offer = host.registry.resolve(kind, use.use, where=document.where((*path, "use")))
    model = host.registry.config_class(offer)
    if kind != "adapter" and model.preset:
        raise PluginError(
            f"'{offer.provider.name}' has a preset for {', '.join(model.preset)}, but only an adapter's is read",
            where=offer.plugin.label,
        )
    try:
        return Choice(use.use, offer, model.model_validate(use.options))
    except ValidationError as error:
        raise as_recipe_error(error, model, document, path, beside=type(use).model_fields) from None


def _dump(choice: Choice) -> dict[str, Any]:
    return choice.config.model_dump(mode="json")
