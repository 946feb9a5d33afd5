"""Finds the provider behind every name in a recipe and judges each provider's own fields. Loads no torch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from inspect import get_annotations
from typing import Any, get_args

from graftkit.errors import GraftkitError, PluginError, ProviderError, RecipeError
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.kinds import KINDS, Kind, Section
from graftkit.interfaces.objective_config import (
    AnyObjectiveConfig,
    MaskedConfig,
    ObjectiveConfig,
    RetrievalConfig,
    SampledConfig,
    SequenceConfig,
    SimilarityConfig,
    TeacherConfig,
    TokenConfig,
)
from graftkit.recipe.callbacks import bind_callbacks
from graftkit.recipe.choice import Choice, judge
from graftkit.recipe.document import Document, KeyPath
from graftkit.recipe.load import LoadedRecipe
from graftkit.recipe.preset import Preset
from graftkit.recipe.schema.providers import ExportSection, ProviderSection
from graftkit.recipe.schema.recipe import Recipe
from graftkit.recipe.sections import chosen_by_name, is_listed
from graftkit.redact import without_secret_values

__all__ = ["BoundRecipe", "Choice", "bind"]


@dataclass(frozen=True, slots=True)
class BoundRecipe:
    """A recipe whose every name has been resolved.

    Attributes:
        recipe: The recipe.
        document: Where its keys were said.
        choices: The provider that each section chose, by the section's path; in a list, a path an entry. Sections
            that name a reference are not among them: what opens it is found by asking.
        callbacks: What follows the run.
        absent: What nothing is going to use and can't be used, by its place, each with the error that says why: a
            path as those of `choices`, or that of a callback's settings.
    """

    recipe: Recipe
    document: Document
    choices: Mapping[KeyPath, Choice]
    callbacks: Sequence[Choice] = ()
    absent: Mapping[KeyPath, GraftkitError] = field(default_factory=dict)

    @property
    def quantizer(self) -> Choice:
        """How weights are stored."""
        return self.choices["quantizer",]

    @property
    def adapter(self) -> Choice:
        """What is trained."""
        return self.choices["adapter",]

    @property
    def objective(self) -> Choice:
        """What training minimizes."""
        return self.choices["objective",]

    @property
    def objective_config(self) -> AnyObjectiveConfig:
        """The objective's fields, and what records it learns from."""
        config = self.objective.config
        assert isinstance(config, AnyObjectiveConfig)  # or `bind` had refused it
        return config

    @property
    def exports(self) -> tuple[tuple[ExportSection, Choice], ...]:
        """What is written, each with its entry in the recipe; none that is `absent`."""
        entries = ((entry, self.choices.get(("export", index))) for index, entry in enumerate(self.recipe.export))
        return tuple((entry, choice) for entry, choice in entries if choice is not None)

    @property
    def absent_exports(self) -> dict[str, GraftkitError]:
        """What is written by exporters that are `absent`, by its folder."""
        entries = enumerate(self.recipe.export)
        return {
            entry.folder: self.absent["export", index] for index, entry in entries if ("export", index) in self.absent
        }

    @property
    def absent_metrics(self) -> dict[str, GraftkitError]:
        """The metrics that are `absent`, by the name that each is reported as."""
        entries = (
            (("evaluation", "metrics", index), entry) for index, entry in enumerate(self.recipe.evaluation.metrics)
        )
        return {entry.label: self.absent[path] for path, entry in entries if path in self.absent}

    @property
    def absent_callbacks(self) -> dict[str, GraftkitError]:
        """The callbacks that are `absent`, by what the recipe calls them."""
        return {str(path[1]): error for path, error in self.absent.items() if path[0] == "plugins"}

    @property
    def metrics(self) -> dict[str, Choice]:
        """What answers are compared by, each under the name that it is reported as.

        Raises:
            GraftkitError: One of them is `absent`.
        """
        for error in self.absent_metrics.values():
            raise error
        entries = enumerate(self.recipe.evaluation.metrics)
        return {entry.label: self.choices["evaluation", "metrics", index] for index, entry in entries}

    @property
    def metric_names(self) -> list[str]:
        """The names that metrics are reported as, of those that are absent, too."""
        return [entry.label for entry in self.recipe.evaluation.metrics]

    @property
    def initializer(self) -> Choice | None:
        """What the rows of new tokens start as; None where the vocabulary stays as it is."""
        return self.choices.get(("tokenizer", "embedding_init"))

    @property
    def trainer(self) -> Choice | None:
        """The backend that trains a tokenizer, where one is trained."""
        return self.choices.get(("tokenizer", "train"))

    def with_values(self, values: Mapping[str, Any]) -> BoundRecipe:
        """Returns the recipe with other values of some keys, each "section.key", which are not judged again."""
        recipe = self.recipe
        for key, value in values.items():
            section, _, name = key.partition(".")
            changed = getattr(recipe, section).model_copy(update={name: value})
            recipe = recipe.model_copy(update={section: changed})
        return replace(self, recipe=recipe)

    def resolved(self) -> dict[str, Any]:
        """Returns the whole recipe with every default and preset filled in, as JSON, secrets hidden."""
        data = self.recipe.model_dump(mode="json")
        for (*above, key), choice in self.choices.items():
            at: Any = data
            for name in above:
                at = at[name]
            at[key] = (at[key] or {"use": choice.use}) | choice.config.model_dump(mode="json")
        for choice in self.callbacks:
            if choice.use in self.recipe.plugins.settings:
                data["plugins"][choice.use] = choice.config.model_dump(mode="json")
        hidden: dict[str, Any] = without_secret_values(data)
        return hidden

    def providers(self, known: Callable[[KeyPath], Mapping[str, Any] | None] = lambda path: None) -> dict[str, Any]:
        """Returns what each name resolved to, as JSON, by its kind; of a kind that a recipe lists, a list.

        Args:
            known: Returns what was said of one that is absent, by its path; None where nothing was.
        """
        found: dict[str, Any] = {}

        def facts_of(path: KeyPath) -> list[Mapping[str, Any]]:
            facts = known(path) if path in self.absent else self.choices[path].facts()
            return [facts] if facts else []

        for kind, section in chosen_by_name():
            chosen = [facts for path, _ in _uses(self.recipe, section) for facts in facts_of(path)]
            if is_listed(type(self.recipe), section.path):
                name = _key(KINDS[kind].plural)
                found[name] = [*found.get(name, []), *chosen]
            elif chosen and section.recorded:
                found[_key(kind)] = chosen[0]
        callbacks = [choice.facts() for choice in self.callbacks]
        callbacks += [dict(facts) for name in self.absent_callbacks for facts in facts_of(("plugins", name))]
        return found | ({"callbacks": callbacks} if callbacks else {})


def bind(loaded: LoadedRecipe, host: PluginHost, *, unused: Collection[KeyPath] = ()) -> BoundRecipe:
    """Resolves a recipe's names, after its adapter's preset has filled in what it is silent on.

    Args:
        loaded: The recipe.
        host: The plugins.
        unused: Places of the recipe, and with each all below it, whose exporters, metrics and callbacks nothing is
            going to use: one that is not installed is no error until it is asked for.

    Raises:
        ProviderError: A name that nobody offers, or several do.
        PluginError: A provider that can't be used, a preset that can't, or a plugin that is to be left out and is not.
        RecipeError: A field that its provider does not know, or a value that it refuses.
    """
    host.check_left_out(loaded.recipe.plugins.disable, loaded.document.where(("plugins", "disable")))
    adapter = _choose(host, "adapter", loaded.recipe.adapter, loaded.document, ("adapter",))
    if not adapter.config.preset:
        return _bind(host, loaded.recipe, loaded.document, adapter, unused)
    preset = Preset(adapter.registered, adapter.config.preset)
    try:
        return _bind(host, *preset.fill(loaded.recipe, loaded.document), adapter, unused)
    except (ProviderError, RecipeError) as error:
        if preset.blames(error.where):
            raise PluginError(error.message, where=error.where, hint=error.hint) from None
        raise


def _bind(
    host: PluginHost, recipe: Recipe, document: Document, adapter: Choice, unused: Collection[KeyPath]
) -> BoundRecipe:
    choices: dict[KeyPath, Choice] = {("adapter",): adapter}
    absent: dict[KeyPath, GraftkitError] = {}
    for kind, section in chosen_by_name():
        for path, use in _uses(recipe, section):
            if path in choices:
                continue
            try:
                choices[path] = _choose(host, kind, use, document, path)
            except (ProviderError, PluginError) as error:
                if not any(path[: len(place)] == place for place in unused):
                    raise
                absent[path] = error
    absent_callbacks = absent if ("plugins",) in unused else None
    callbacks = bind_callbacks(recipe.plugins.settings, document, host, absent_callbacks)
    return BoundRecipe(recipe, document, choices, callbacks, absent)


def _uses(recipe: Recipe, section: Section) -> list[tuple[KeyPath, ProviderSection]]:
    """Returns each name that a recipe says in a section, with its place; where it says none, the section's default."""
    found = list(_said(recipe, section.path, ()))
    return found or ([(section.path, ProviderSection(use=section.default))] if section.default else [])


def _said(value: Any, keys: tuple[str, ...], path: KeyPath) -> Iterator[tuple[KeyPath, ProviderSection]]:
    """Follows keys into a recipe, through every entry of a list."""
    if isinstance(value, list):
        for number, entry in enumerate(value):
            yield from _said(entry, keys, (*path, number))
    elif keys:
        yield from _said(getattr(value, keys[0], None), keys[1:], (*path, keys[0]))
    elif isinstance(value, ProviderSection):
        yield path, value


def _key(name: str) -> str:
    """Returns a kind's name as a manifest's key."""
    return name.replace("-", "_").replace(" ", "_")


def _choose(host: PluginHost, kind: Kind, use: ProviderSection, document: Document, path: KeyPath) -> Choice:
    registered = host.registry.resolve(kind, use.use, where=document.where((*path, "use")))
    model = host.registry.config_class(registered)
    if kind != "adapter" and model.preset:
        raise PluginError(
            f"'{registered.provider.name}' has a preset for {', '.join(model.preset)}, but only an adapter's is read",
            where=registered.plugin.label,
        )
    config = judge(registered, model, use.options, document, path, beside=type(use).model_fields)
    if isinstance(config, AnyObjectiveConfig):
        _check_facts(config, registered)
    return Choice(use.use, registered, config)


_DERIVED = (
    *(TeacherConfig, ObjectiveConfig, SampledConfig, MaskedConfig, SequenceConfig, TokenConfig),
    *(RetrievalConfig, SimilarityConfig),
)
"""What the config of an objective derives from, one of these, the narrower first."""


def _check_facts(config: AnyObjectiveConfig, registered: RegisteredProvider) -> None:
    """Refuses an objective whose config says of it what the types of the class that it derives from rule out."""
    name, where = registered.provider.name, registered.plugin.label
    derived = next((each for each in _DERIVED if isinstance(config, each)), None)
    if derived is None:
        names = ", ".join(each.__name__ for each in _DERIVED)
        raise PluginError(f"objective '{name}': its config derives from none of {names}", where=where)
    classes = [each for each in reversed(derived.__mro__) if issubclass(each, AnyObjectiveConfig)]
    types = {fact: kind for each in classes for fact, kind in get_annotations(each, eval_str=True).items()}
    for fact in ("head", "learns_from", "minimizes", "uses_reference"):
        said, known = getattr(config, fact, None), get_args(*get_args(types[fact])) or (False, True)
        if said not in known:
            raise PluginError(
                f"objective '{name}': {fact} is {said!r:.80}; with {derived.__name__} it is one of "
                f"{', '.join(map(repr, known))}",
                where=where,
            )
