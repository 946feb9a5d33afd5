"""Which provider a name means."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from graftkit import PluginHost, Provider
from graftkit.errors import PluginError, ProviderError

Site = Any  # tests/core/host/conftest.py

CONFIGURED = """
from graftkit import Provider, ProviderConfig, hookimpl

class TwigConfig(ProviderConfig):
    length: int = 1

class Twig:
    config_class = TwigConfig
    def __init__(self, config):
        self.config = config

class Plain:
    pass

class Moody:
    def __init__(self):
        raise RuntimeError("not today")

class Nested:
    class config_class(ProviderConfig):
        length: int = 1

@hookimpl
def graftkit_adapters():
    return [
        Provider(name="twig", target="acme:Twig", config="acme:TwigConfig"),
        Provider(name="moody", target="acme:Moody"),
        Provider(name="gone", target="acme:Gone"),
        Provider(name="no-config", target="acme:Plain", config="acme:Plain"),
        Provider(name="quitter", target="acme_quits:Plain"),
    ]
"""


@pytest.fixture
def acme(site: Site) -> Site:
    site.install("acme", CONFIGURED, version="1.5")
    (site.folder / "acme_quits.py").write_text("raise SystemExit(3)")
    (site.folder / "acme_raises.py").write_text("raise RuntimeError('no GPU')")
    (site.folder / "acme_parts").mkdir()
    (site.folder / "acme_parts" / "__init__.py").write_text("from acme import Twig, Plain, Nested")
    (site.folder / "acme_parts" / "raises.py").write_text("raise RuntimeError('no GPU')")
    (site.folder / "acme_parts" / "quits.py").write_text("raise SystemExit(3)")
    (site.folder / "acme_parts" / "twigs.py").write_text("from acme import Nested, Plain, Twig")
    return site


def test_an_unknown_name_comes_with_the_nearest_and_the_place() -> None:
    with pytest.raises(ProviderError) as caught:
        PluginHost().registry.resolve("quantizer", "nf5", where="recipe.yaml:7")
    assert str(caught.value).startswith("recipe.yaml:7: no quantizer is called 'nf5'\nDid you mean 'nf4'? Known: ")


def test_a_class_named_without_a_package_is_told_how() -> None:
    with pytest.raises(ProviderError, match=r"(?s)no metric is called 'rewards:Short'.*package\.module:Class"):
        PluginHost().registry.resolve("metric", "rewards:Short")


def test_a_name_means_a_provider_of_the_kind_that_is_asked_for() -> None:
    with pytest.raises(ProviderError, match="no adapter is called 'nf4'"):
        PluginHost().registry.resolve("adapter", "nf4")


def test_two_third_parties_may_offer_one_name_until_somebody_asks_for_it(site: Site) -> None:
    site.registered("acme", "twig", version="1.2")
    site.registered("brand", "twig", version="3.4")
    registry = PluginHost(strict=True).registry
    with pytest.raises(ProviderError) as caught:
        registry.resolve("adapter", "twig", where="recipe.yaml:4")
    assert "'twig' is offered by plugin 'main' of acme 1.2 and plugin 'main' of brand 3.4" in str(caught.value)
    assert caught.value.hint == "Say which: 'acme:twig' or 'brand:twig'."
    assert registry.resolve("adapter", "brand:twig").plugin.version == "3.4"
    assert registry.resolve("adapter", "acme:twig").plugin.version == "1.2"


def test_nobody_takes_a_built_ins_name_away(site: Site) -> None:
    site.registered("acme", "lora")
    registry = PluginHost().registry
    assert registry.resolve("adapter", "lora").plugin.distribution == "graftkit"
    assert registry.resolve("adapter", "graftkit:lora").plugin.distribution == "graftkit"
    assert registry.resolve("adapter", "acme:lora").plugin.distribution == "acme"


def test_a_class_is_named_directly(acme: Site) -> None:
    registry = PluginHost(autoload=False).registry
    registered = registry.resolve("adapter", "acme_parts.twigs:Twig")
    config = registry.config_class(registered)
    twig = registry.create(registered, config(length=3))  # type: ignore[call-arg]
    assert twig.config.length == 3
    assert registry.resolve("adapter", registered.qualified_name) is registered
    assert type(registry.create(registry.resolve("adapter", "acme_parts.twigs:Plain"))).__name__ == "Plain"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("acme_parts.nothing:Twig", "No module named 'acme_parts.nothing'"),
        ("acme_parts.twigs:Twigg", "has no attribute 'Twigg'"),
        ("acme_parts.twigs:", "has no attribute ''"),
        ("acme_parts.raises:Twig", "no GPU"),
        ("acme_parts.quits:Twig", "SystemExit"),
        (".twigs:Twig", "can't be used"),
        ("acme_parts.twigs:Nested", "can't be used"),
    ],
)
def test_a_direct_name_that_leads_nowhere_says_so_and_where(acme: Site, name: str, reason: str) -> None:
    with pytest.raises(ProviderError) as caught:
        PluginHost(autoload=False).registry.resolve("adapter", name, where="recipe.yaml:4")
    assert reason in str(caught.value) and name in str(caught.value)
    assert caught.value.where == "recipe.yaml:4"
    assert ("PYTHONPATH" in caught.value.hint) == ("No module" in reason)


def test_a_missing_requirement_comes_with_the_command_that_installs_it(site: Site) -> None:
    site.registered("acme", "twig", provider="requires=('json', 'no_such_thing'), install_hint='pip install acme[gpu]'")
    site.registered("brand", "bough", provider="requires=('no_such_thing', 'no_such.part')")
    registry = PluginHost().registry
    with pytest.raises(PluginError, match="adapter 'twig' needs no_such_thing, which is not installed") as caught:
        registry.resolve("adapter", "twig", where="recipe.yaml:4")
    assert (caught.value.where, caught.value.hint) == ("recipe.yaml:4", "pip install acme[gpu]")
    with pytest.raises(PluginError) as caught:
        registry.resolve("adapter", "bough")
    assert caught.value.hint == "Install it: pip install no_such_thing no_such.part"
    assert caught.value.where == "plugin 'main' of brand 1.0"


def test_requirements_are_probed_without_importing_them(site: Site) -> None:
    (site.folder / "loud").mkdir()
    (site.folder / "loud" / "__init__.py").write_text("raise RuntimeError('imported')")
    (site.folder / "loud" / "part.py").write_text("")
    site.registered("acme", "twig", provider="requires=('loud', 'loud.part')")
    assert PluginHost().registry.resolve("adapter", "twig").provider.name == "twig"
    assert "loud" not in sys.modules


@pytest.mark.parametrize("name", ["", "loud..part", "json.no_such", "no_such.json", "math.part", "."])
def test_a_requirement_that_cannot_be_a_module_counts_as_missing(name: str) -> None:
    provider = Provider(name="twig", target="a:B", requires=(name,))
    assert PluginHost(autoload=False).registry.missing_requirements(provider) == [name]


def test_a_module_that_was_made_in_memory_counts_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = type(sys)("made_in_memory")
    monkeypatch.setitem(sys.modules, "made_in_memory", module)
    provider = Provider(name="twig", target="a:B", requires=("made_in_memory",))
    assert PluginHost(autoload=False).registry.missing_requirements(provider) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("moody", "adapter 'moody' could not be made: RuntimeError: not today"),
        ("gone", "adapter 'gone' can't be imported: AttributeError"),
        ("quitter", "adapter 'quitter' can't be imported: SystemExit: 3"),
    ],
)
def test_a_provider_that_cannot_be_made_names_its_plugin(acme: Site, name: str, reason: str) -> None:
    registry = PluginHost().registry
    with pytest.raises(PluginError) as caught:
        registry.create(registry.resolve("adapter", name))
    assert str(caught.value).startswith(f"plugin 'main' of acme 1.5: {reason}")


def test_a_config_that_is_no_provider_config_is_refused(acme: Site) -> None:
    registry = PluginHost().registry
    with pytest.raises(PluginError, match="acme:Plain is no ProviderConfig"):
        registry.config_class(registry.resolve("adapter", "no-config"))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "Twig"},
        {"name": "twig_1"},
        {"name": "-twig"},
        {"name": "twig--x"},
        {"name": ""},
        {"target": ""},
        {"target": "acme"},
        {"target": "acme:Twig()"},
        {"config": "acme.TwigConfig"},
        {"requires": "torch"},
    ],
    ids=str,
)
def test_a_provider_of_another_form_is_refused_where_it_is_made(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="provider"):
        Provider(**({"name": "twig", "target": "acme:Twig"} | fields))


def test_what_is_imported_is_not_imported_under_guard_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """No code of a plugin's runs then; records are read with a dozen providers made anew for each file."""
    registry = PluginHost().registry
    registered = registry.resolve("quantizer", "nf4")
    made = registry.config_class(registered)
    monkeypatch.setattr("graftkit.host.registry.guarded", lambda *_: pytest.fail("it was imported under guard"))
    assert registry.config_class(registered) is made
    name = registered.provider.config.partition(":")[0]
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(PluginError, match="under guard"):
        registry.config_class(registered)
