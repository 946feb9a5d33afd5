"""A plugin that fails is shown and leaves nothing behind; the others and the command go on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
from graftkit import PluginHost, Provider, hookimpl
from graftkit.errors import PluginError

Site = Any  # tests/core/host/conftest.py

GOOD_HOOK = """
from graftkit import Provider, hookimpl

@hookimpl
def graftkit_adapters():
    return [Provider(name="twig", target="broken:Twig")]

@hookimpl
def graftkit_run_finished(run):
    raise RuntimeError("a failed plugin was called")
"""

FAILURES = {
    "raises on import": ("raise RuntimeError('no\\n  GPU')", "RuntimeError: no GPU"),
    "imports what is missing": ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
    "is no Python": ("def (", "SyntaxError"),
    "exits on import": ("raise SystemExit(3)", "SystemExit: 3"),
    "exits in a hook": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_exporters():\n    raise SystemExit('bye')",
        "SystemExit: bye",
    ),
    "raises in a hook": (GOOD_HOOK + "@hookimpl\ndef graftkit_exporters():\n    1 / 0", "ZeroDivisionError"),
    "misspells a hook": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_exportres():\n    return []",
        "unknown hook 'graftkit_exportres'",
    ),
    "misnames an argument": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_run_started(runn):\n    pass",
        "Argument(s) {'runn'} are declared in the hookimpl but can not be found in the hookspec",
    ),
    "returns no list": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_exporters():\n    return ()",
        "graftkit_exporters returned tuple, not a list",
    ),
    "forgets to return": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_exporters():\n    [Provider(name='x', target='a:B')]",
        "graftkit_exporters returned None, not a list",
    ),
    "lists something else": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_exporters():\n    return ['x']",
        "graftkit_exporters returned a list that holds 'x', which is no Provider",
    ),
    "misnames a provider": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_exporters():\n    return [Provider(name='Bad Name', target='a:B')]",
        "ValueError: provider name 'Bad Name': use lower-case letters, digits and single hyphens",
    ),
    "raises when asked for commands": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_commands():\n    1 / 0",
        "ZeroDivisionError",
    ),
    "offers commands that are none": (
        GOOD_HOOK + "@hookimpl\ndef graftkit_commands():\n    return ['x']",
        "graftkit_commands returned a list that holds 'x', which is no click.Command",
    ),
}


@pytest.mark.parametrize(("source", "reason"), FAILURES.values(), ids=list(FAILURES))
def test_it_is_remembered_as_failed_and_leaves_nothing_behind(site: Site, source: str, reason: str) -> None:
    site.registered("another", "branch")
    site.install("broken", source)
    site.registered("well", "bough")
    host = PluginHost()
    status = {record.distribution: record.status for record in host.records}
    assert (status["another"], status["broken"], status["well"]) == ("active", "failed", "active")
    [failed] = [record for record in host.records if record.distribution == "broken"]
    assert reason in failed.reason and "\n" not in failed.reason
    names = {registered.provider.name for registered in host.registry.providers()}
    assert {"branch", "bough", "lora"} <= names and "twig" not in names
    assert host.commands() == []
    host.broadcast("graftkit_run_finished", run=None)


def test_a_request_for_its_provider_says_that_it_failed_and_why(site: Site) -> None:
    site.install("broken", "raise RuntimeError('no GPU')", version="0.4")
    with pytest.raises(Exception, match="no adapter is called 'twig'") as caught:
        PluginHost().registry.resolve("adapter", "twig", where="recipe.yaml:4")
    assert "plugin 'main' of broken 0.4 (failed: RuntimeError: no GPU)" in str(caught.value)


def test_a_failed_plugin_takes_no_command_down_and_is_listed(site: Site) -> None:
    site.install("broken", FAILURES["raises when asked for commands"][0], version="0.4")
    site.install("leaving", "raise SystemExit(3)")

    def output(*arguments: str) -> str:
        code = "import sys; from graftkit.cli.main import main; main(sys.argv[1:])"
        command = [sys.executable, "-c", code, *arguments]
        environment = {**os.environ, "PYTHONPATH": str(site.folder)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert "Commands:" in output("--help")
    plugins = json.loads(output("plugins", "--json"))["plugins"]
    failed = {plugin["distribution"]: plugin["reason"] for plugin in plugins if plugin["status"] == "failed"}
    assert failed == {"broken": "ZeroDivisionError: division by zero", "leaving": "SystemExit: 3"}


def test_stopping_the_program_is_no_failure_of_a_plugin(site: Site) -> None:
    site.install("impatient", "import signal\nsignal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        PluginHost()


@pytest.mark.parametrize("source", ["raise RuntimeError('no GPU')", "raise SystemExit('no GPU')"])
def test_strict_mode_makes_any_failure_fatal(site: Site, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    site.install("broken", source, version="0.4")
    monkeypatch.setenv("GRAFTKIT_STRICT_PLUGINS", "1")
    with pytest.raises(PluginError, match=r"plugin 'main' of broken 0\.4: failed to load: .*no GPU") as caught:
        PluginHost()
    assert caught.value.exit_code == 2
    PluginHost(strict=False)
    PluginHost(disable=["broken"])


def test_strict_mode_refuses_a_name_announced_twice(site: Site) -> None:
    site.registered("twice", "twig")
    (site.folder / "twice-1.0.dist-info" / "entry_points.txt").write_text(
        "[graftkit.plugins.v1]\nmain = twice\nmain = twice\n"
    )
    with pytest.raises(PluginError, match="more than once"):
        PluginHost(strict=True)


class Handed:
    @hookimpl
    def graftkit_exporters(self) -> list[Provider]:
        return [Provider(name="onnx", target="somewhere:Onnx")]


def test_one_object_handed_over_twice_stays_in_use_once() -> None:
    plugin = Handed()
    host = PluginHost(autoload=False, plugins=[plugin, plugin, Handed()])
    assert [record.status for record in host.records] == ["active", "failed", "failed"]
    assert host.records[1].reason == "ValueError: the same as plugin 'Handed'"
    assert host.records[2].reason == "ValueError: another plugin is called 'Handed'"
    assert len(host.registry.providers()) == 1


def test_one_module_announced_under_two_names_stays_in_use_once(site: Site) -> None:
    site.registered("same", "twig")
    (site.folder / "same-1.0.dist-info" / "entry_points.txt").write_text(
        "[graftkit.plugins.v1]\nfirst = same\nsecond = same\n"
    )
    host = PluginHost()
    statuses = [(record.name, record.status) for record in host.records if record.distribution == "same"]
    assert statuses == [("first", "active"), ("second", "failed")]
    assert host.registry.resolve("adapter", "twig").plugin.name == "first"


def test_leaving_out_a_plugin_that_is_not_there_is_an_error_that_names_the_nearest(site: Site) -> None:
    site.registered("twigs", "twig")
    with pytest.raises(PluginError, match="no plugin 'twgis'") as caught:
        PluginHost(disable=["twgis"])
    assert "'twigs'" in caught.value.hint


@pytest.mark.parametrize("name", ["Two-Twigs", "two_twigs", "two.twigs"])
def test_a_distribution_may_be_written_as_package_indexes_allow(site: Site, name: str) -> None:
    site.registered("two_twigs", "twig")
    statuses = {record.distribution: record.status for record in PluginHost(disable=[name]).records}
    assert statuses["two_twigs"] == "disabled"


def test_a_plugin_without_any_hook_is_told_what_it_lacks(site: Site) -> None:
    site.install("forgetful", "def graftkit_adapters():\n    return []\n")
    (record,) = [record for record in PluginHost().records if record.distribution == "forgetful"]
    assert record.status == "failed" and "is @hookimpl missing?" in record.reason
