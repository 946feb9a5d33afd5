"""`toolkit plugin check` of a provider that has fields without a default."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
from graftkit import PluginHost, Provider, ProviderConfig, hookimpl
from graftkit.errors import PluginError, RecipeError
from graftkit.scaffold.check import check_plugins, checked_fields, contract_module, find_offers
from graftkit.testing import isolated_host


class FileConfig(ProviderConfig):
    """Where lines go."""

    path: str


class Lines:
    """Follows runs."""

    def __init__(self, config: FileConfig) -> None:
        self.path = config.path


@pytest.fixture
def host() -> Any:
    def graftkit_callbacks() -> list[Provider]:
        target, config = f"{__name__}:Lines", f"{__name__}:FileConfig"
        return [Provider(name="lines", target=target, config=config, summary="follows runs")]

    plugin = ModuleType("graftkit_lines")
    plugin.graftkit_callbacks = hookimpl(graftkit_callbacks)  # type: ignore[attr-defined]
    return isolated_host(plugin)


def test_a_field_without_a_default_is_asked_for_before_anything_runs(host: Any) -> None:
    with pytest.raises(RecipeError, match="'path' is missing") as caught:
        checked_fields(host, find_offers(host, "lines"), [])
    assert "--set KEY=VALUE" in caught.value.hint and "Provider(contract=...)" in caught.value.hint


def test_fields_are_those_of_the_contract_that_is_run(host: Any) -> None:
    offers = find_offers(host, "lines")
    fields = checked_fields(host, offers, ["path=runs.tsv"])
    assert fields == {"path": "runs.tsv"} and "    options = {'path': 'runs.tsv'}\n" in contract_module(offers, fields)
    assert "options" not in contract_module(offers)


@pytest.mark.parametrize(
    ("name", "assignments", "message"),
    [
        ("lines", ["path"], "the form is KEY=VALUE"),
        ("lines", ["paht=a"], "unknown key 'paht'"),
        ("graftkit-metrics", ["path=a"], "these are fields of one provider, and"),
    ],
)
def test_fields_that_are_none_are_refused(host: Any, name: str, assignments: list[str], message: str) -> None:
    offers = find_offers(host, name) if name == "lines" else host.registry.providers("metric")
    with pytest.raises(RecipeError, match=message):
        checked_fields(host, offers, assignments)


def test_a_plugin_that_ends_the_check_does_not_pass_it(site: Any) -> None:
    """pytest's process ends with exit code 0 then."""
    source = """\
    import os
    from graftkit import Provider, hookimpl

    class Leaving:
        def score(self, answered):
            os._exit(0)

    @hookimpl
    def graftkit_metrics():
        return [Provider("leaving", "acme:Leaving", summary="leaves")]
    """
    site.install("acme", source, version="1.5")
    with pytest.raises(
        PluginError, match="plugin 'main' of acme 1.5: .*the check ended in test_every_answer_has_a_fin"
    ):
        check_plugins(find_offers(PluginHost(), "acme"), quiet=True)


def test_what_a_contract_deviates_in_is_told_with_the_reason(site: Any, capfd: pytest.CaptureFixture[str]) -> None:
    source = """\
    from graftkit import Provider, hookimpl
    from graftkit.testing import CallbackContract, deviates

    class Quiet:
        pass

    class QuietContract(CallbackContract):
        @deviates("it follows one run")
        def test_runs_side_by_side_share_nothing(self): ...

    @hookimpl
    def graftkit_callbacks():
        return [Provider("quiet", "acme:Quiet", contract="acme:QuietContract", summary="does nothing")]
    """
    site.install("acme", source, version="1.5")
    check_plugins(find_offers(PluginHost(), "acme"), quiet=True)
    told = "TestQuiet0.test_runs_side_by_side_share_nothing is not held as its kind does: it follows one run\n"
    assert told in capfd.readouterr().out
