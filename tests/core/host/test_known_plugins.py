"""The list of plugins that graftkit carries is right, and whoever names a provider of one is told how to install it."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from graftkit import PluginHost
from graftkit.errors import ProviderError, RecipeError
from graftkit.host.known_plugins import KnownPlugin, known_plugins
from graftkit.interfaces.kinds import KINDS
from graftkit.recipe.bind import bind
from graftkit.recipe.load import load_recipe

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("plugin", known_plugins(), ids=lambda found: found.distribution)
def test_each_plugin_of_the_list_is_where_the_list_says(plugin: KnownPlugin) -> None:
    assert plugin.providers.keys() <= KINDS.keys()
    project = ROOT / plugin.install
    said = tomllib.loads((project / "pyproject.toml").read_text())["project"]
    assert said["name"] == plugin.distribution
    [module] = said["entry-points"]["graftkit.plugins.v1"].values()
    source = (project / module / "__init__.py").read_text()
    for names in plugin.providers.values():
        assert all(f'name="{name}"' in source for name in names)


def test_a_callback_that_is_not_installed_is_named_with_its_distribution() -> None:
    recipe = {"model": "./m", "data": {"train": "a.jsonl"}, "plugins": {"sqlite": {"path": "runs.db"}}}
    with pytest.raises(RecipeError, match=r"unknown key 'plugins.sqlite'.*\ngraftkit-sqlite offers it: pip install"):
        bind(load_recipe(recipe), PluginHost())
    left_out = PluginHost(plugins=[SimpleNamespace(__name__="sqlite")], disable=["sqlite"])
    assert bind(load_recipe(recipe), left_out).callbacks == []


def test_a_provider_that_is_not_installed_is_named_with_its_distribution() -> None:
    host = PluginHost(autoload=False)
    for name in ("hqq", "graftkit-hqq:hqq"):
        with pytest.raises(ProviderError) as caught:
            host.registry.resolve("quantizer", name)
        assert caught.value.hint.startswith(
            "graftkit-hqq offers it: pip install ./fixtures/plugins/graftkit-hqq in a copy of graftkit's repository. "
        )
    with pytest.raises(ProviderError) as caught:
        host.registry.resolve("adapter", "hqq")
    assert "graftkit-hqq" not in caught.value.hint
