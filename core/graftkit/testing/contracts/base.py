"""What every provider promises, whatever its kind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import ValidationError

from graftkit.articles import with_article
from graftkit.host.host import PluginHost
from graftkit.interfaces.config import ProviderConfig
from graftkit.interfaces.kinds import KINDS, Kind
from graftkit.interfaces.provider import import_target
from graftkit.recipe.bind import Choice
from graftkit.recipe.document import Document
from graftkit.recipe.load import as_recipe_error
from graftkit.testing.fresh import call_fresh

__all__ = ["Contract", "choose", "deviates", "refusal"]

Test = TypeVar("Test", bound=Callable[..., object])


def deviates(reason: str) -> Callable[[Test], Test]:
    """Marks a test that stands in for one of a contract's, and says why the provider can't keep that promise.

    Example:
        >>> @deviates("the format stores no zero, so zeros come back as the smallest number")
        ... def test_zeros_stay_zeros_and_constants_stay_near(self) -> None: ...

    Raises:
        ValueError: No reason is given.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise ValueError('deviates: say why, such as @deviates("the format has no zero")')

    def mark(test: Test) -> Test:
        test.deviation = reason  # type: ignore[attr-defined]
        return test

    return mark


@cache
def _installed() -> PluginHost:
    return PluginHost()


class Contract:
    """The base of the contracts.

    Attributes:
        kind: The kind of provider.
        provider: A registered name, `distribution:name`, or `package.module:Class`.
        options: The provider's own recipe fields, where they are not to be the defaults.
    """

    kind: ClassVar[Kind]
    provider: ClassVar[str] = ""
    options: ClassVar[Mapping[str, Any]] = {}

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, promise in _promises(cls):
            found = getattr(cls, name)
            if found is not promise and not getattr(found, "deviation", ""):
                raise TypeError(
                    f"{cls.__name__}.{name} replaces a test of {KINDS[cls.kind].plural}' contract without a reason: "
                    'call it something else, or mark it with @deviates("why the provider can\'t keep the promise")'
                )

    @property
    def interface(self) -> type:
        """The Protocol that a provider of this kind keeps."""
        protocol: type = import_target(KINDS[self.kind].protocol)
        return protocol

    def host(self) -> PluginHost:
        """Returns the plugins to choose from: all that are installed, looked for once in a process."""
        return _installed()

    @cached_property
    def choice(self) -> Choice:
        """The provider and its fields, judged as a recipe's are."""
        if not self.provider:
            raise TypeError(f'{type(self).__name__} says no provider: write provider = "its-name" in it')
        return choose(self.host(), self.kind, self.provider, self.options, self.recipe_folder())

    def recipe_folder(self) -> Path:
        """Returns the folder that relative paths among the options start at, as a recipe's do at its own."""
        return Path()

    def make(self) -> Any:
        """Makes the provider."""
        return self.create(self.choice)

    def create(self, choice: Choice) -> Any:
        """Makes any provider that was chosen, unguarded: what it does to the process is what the contract looks at."""
        return self.host().registry.create_unguarded(choice.registered, choice.config)

    def test_listing_the_plugin_and_judging_its_fields_loads_nothing_heavy(self) -> None:
        """Whoever lists plugins, or mistypes a recipe, need not wait for torch."""
        registered = self.choice.registered
        plugin = "" if registered.plugin.value == registered.provider.target else registered.plugin.value
        heavy = call_fresh("graftkit.testing.errands:list_plugin", plugin, registered.provider.config)
        assert not heavy, (
            f"importing {plugin or 'nothing'} and {registered.provider.config or 'nothing'} loads "
            f"{', '.join(heavy)}: import them in the module of {registered.provider.target}, "
            "and keep the config model in a module of its own"
        )

    def test_what_it_requires_is_installed(self) -> None:
        """`requires` names modules that are there; one that isn't is an error when a recipe chooses the provider."""
        registered = self.choice.registered
        missing = self.host().registry.missing_requirements(registered.provider)
        assert not missing, f"install {', '.join(missing)}, or take them out of {registered.provider.name}'s requires"

    def test_it_has_everything_that_its_interface_names(self) -> None:
        """The target can be imported and made, and has every attribute and method of the Protocol."""
        check_interface(self.make(), self.interface)

    def test_every_field_is_described_and_has_a_schema(self) -> None:
        """`toolkit schema` and editors show each field with its description."""
        model = self._config_class()
        bare = [name for name, field in model.model_fields.items() if not (field.description or "").strip()]
        assert not bare, f'{model.__name__}: give {", ".join(bare)} a Field(description="...")'
        assert json.loads(json.dumps(model.model_json_schema())), f"{model.__name__} has no JSON schema"

    def test_an_unknown_field_is_refused(self) -> None:
        """A mistyped field is never ignored."""
        model = self._config_class()
        did = refusal(lambda: model.model_validate({**self.options, "no_field_of_anybody": 1}), ValidationError)
        assert not did, f"{model.__name__} must refuse a field that it does not have, as ProviderConfig does; it {did}"

    def test_its_fields_come_back_from_a_manifest(self) -> None:
        """A run's manifest keeps the fields as JSON, and an export is proved with what it gives back."""
        config = self.choice.config
        kept = json.loads(json.dumps(config.model_dump(mode="json")))
        again = type(config).model_validate(kept)
        assert again == config, f"{type(config).__name__} reads {again} from the JSON that it wrote of {config}"

    def test_the_contract_that_it_ships_is_one_of_its_kind(self) -> None:
        """`toolkit plugin check` runs it."""
        target = self.choice.registered.provider.contract
        if target:
            found = import_target(target)
            assert issubclass(found, Contract) and found.kind == self.kind, (
                f"{target} is no contract of {with_article(self.kind)}"
            )

    def _config_class(self) -> type[ProviderConfig]:
        return self.host().registry.config_class(self.choice.registered)


def _promises(cls: type[Contract]) -> Iterator[tuple[str, Any]]:
    """Yields every test of the contracts that a class derives from."""
    for base in cls.__mro__[1:]:
        if issubclass(base, Contract):
            yield from ((name, test) for name, test in vars(base).items() if name.startswith("test_"))


def choose(host: PluginHost, kind: Kind, name: str, options: Mapping[str, Any], folder: Path | None = None) -> Choice:
    """Resolves a name and judges the fields that go with it, as a recipe's are.

    Args:
        host: The plugins.
        kind: The kind of provider.
        name: Its name.
        options: Its fields.
        folder: Where a `RecipePath` among them starts; the current one when left out.

    Raises:
        RecipeError: A field that the provider does not know, or a value that it refuses.
    """
    registered = host.registry.resolve(kind, name)
    model = host.registry.config_class(registered)
    try:
        return Choice(name, registered, model.model_validate(dict(options), context=lambda field: folder or Path()))
    except ValidationError as error:
        raise as_recipe_error(error, model, Document(dict(options), "options")) from None


def check_interface(found: object, interface: type) -> None:
    """Compares an object with a Protocol, by the names of attributes and methods."""
    promised = {*vars(interface), *vars(interface).get("__annotations__", {})}
    names = sorted(name for name in promised if not name.startswith("_"))
    missing = [name for name in names if not hasattr(found, name)]
    assert not missing, f"{type(found).__name__} lacks {', '.join(missing)} of the interface {interface.__name__}"
    for name in names:
        if callable(getattr(interface, name, None)):
            assert callable(getattr(found, name)), f"{type(found).__name__}.{name} is no method"


def refusal(call: Callable[[], object], kind: type[Exception] = ValueError) -> str:
    """Returns nothing if a call raises an error of this kind, or else what it did instead."""
    try:
        call()
    except kind:
        return ""
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"
    return "accepted it"
