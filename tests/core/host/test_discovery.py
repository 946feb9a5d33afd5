"""Which plugins a host finds, and which of them it leaves alone."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from graftkit import PluginHost, Provider, hookimpl
from graftkit.cli.main import main
from graftkit.errors import PluginError
from graftkit.host.records import PluginRecord

Site = Any  # tests/core/host/conftest.py


def record(host: PluginHost, distribution: str) -> PluginRecord:
    [found] = [record for record in host.records if record.distribution == distribution]
    return found


def names(host: PluginHost) -> list[str]:
    return [registered.provider.name for registered in host.registry.providers()]


def test_an_installed_plugin_is_found_with_its_provenance(site: Site) -> None:
    site.registered("acme-grafts", "twig", version="2.3")
    host = PluginHost()
    found = record(host, "acme-grafts")
    assert (found.name, found.version, found.value) == ("main", "2.3", "acme_grafts")
    assert (found.status, found.reason) == ("active", "")
    assert found.file == str(site.folder / "acme_grafts.py")
    assert 0 < found.import_seconds < 10
    assert host.registry.resolve("adapter", "twig").plugin is found


def test_the_built_ins_come_through_the_same_door() -> None:
    host = PluginHost()
    built_in = {record.name for record in host.records if record.distribution == "graftkit"}
    assert built_in == {
        "adapters",
        "callbacks",
        "exporters",
        "formats",
        "gguf",
        "initializers",
        "metrics",
        "mlx",
        "models",
        "objectives",
        "quantizers",
        "readers",
        "tokenizers",
        "tokenizers-sentencepiece",
    }
    assert all(record.status == "active" for record in host.records if record.distribution == "graftkit")
    assert {"lora", "qlora", "nf4", "peft"} <= set(names(host))


def test_plugins_come_in_the_order_of_distribution_and_name(site: Site) -> None:
    site.install("zeta", "", groups={"graftkit.plugins.v1": {"b": "zeta", "a": "zeta_other"}})
    (site.folder / "zeta_other.py").write_text("")
    site.install("alpha")
    host = PluginHost()
    keys = [(record.distribution, record.name) for record in host.records]
    assert keys == sorted(keys)
    assert [key for key in keys if key[0] in ("alpha", "zeta")] == [("alpha", "main"), ("zeta", "a"), ("zeta", "b")]


def test_importing_a_plugin_does_not_import_its_providers(site: Site) -> None:
    source = """\
    from graftkit import Provider, hookimpl

    @hookimpl
    def graftkit_quantizers():
        return [Provider(name="ternary", target="heavy_ternary:Ternary")]
    """
    site.install("ternary", source)
    (site.folder / "heavy_ternary.py").write_text("class Ternary: pass")
    host = PluginHost()
    registered = host.registry.resolve("quantizer", "ternary")
    assert "heavy_ternary" not in sys.modules
    assert type(host.registry.create(registered)).__name__ == "Ternary"


def test_a_plugin_of_another_api_is_listed_and_never_imported(site: Site) -> None:
    site.install("tomorrow", "raise RuntimeError", groups={"graftkit.plugins.v2": {"main": "tomorrow"}})
    found = record(PluginHost(strict=True), "tomorrow")
    assert found.status == "incompatible"
    assert found.reason == "made for plugin API 2; this graftkit has 1"
    assert "tomorrow" not in sys.modules


def test_a_distribution_may_serve_two_api_majors(site: Site) -> None:
    groups = {"graftkit.plugins.v1": {"main": "both"}, "graftkit.plugins.v2": {"main": "both_next"}}
    site.install(
        "both", "from graftkit import hookimpl\n\n@hookimpl\ndef graftkit_adapters():\n    return []\n", groups=groups
    )
    found = [(record.value, record.status) for record in PluginHost().records if record.distribution == "both"]
    assert found == [("both", "active"), ("both_next", "incompatible")]


def test_a_name_announced_twice_by_one_distribution_is_used_once_and_shown(site: Site) -> None:
    site.registered("twice", "twig")
    info = site.folder / "twice-1.0.dist-info" / "entry_points.txt"
    info.write_text("[graftkit.plugins.v1]\nmain = twice\nmain = twice_too\n")
    (site.folder / "twice_too.py").write_text("")
    host = PluginHost()
    first, second = (record for record in host.records if record.distribution == "twice")
    assert (first.status, first.value) == ("active", "twice")
    assert (second.status, second.value) == ("failed", "twice_too")
    assert second.reason == "twice announces the name 'main' more than once"
    assert "twice_too" not in sys.modules


def test_remains_of_a_distribution_without_metadata_do_not_stop_the_others(site: Site) -> None:
    site.registered("half-gone", "twig")
    (site.folder / "half_gone-1.0.dist-info" / "METADATA").unlink()
    site.registered("whole", "branch")
    assert "branch" in names(PluginHost())


@pytest.mark.parametrize("announced", [b"[x]\na = \xff", b"[x]\nno value"])
def test_a_distribution_with_damaged_announcements_is_named(
    site: Site, announced: bytes, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a library reads them first, as pydantic does: its error names none."""
    site.install("broken")
    (site.folder / "broken-1.0.dist-info" / "entry_points.txt").write_bytes(announced)
    with pytest.raises(PluginError, match=r"broken in .*: its entry_points.txt is damaged"):
        PluginHost()
    monkeypatch.setattr("graftkit.cli.plugins.open_host", lambda _: int("no value"))
    with pytest.raises(SystemExit) as ended:
        main(["plugins"])
    assert ended.value.code == 2 and "broken in" in capsys.readouterr().err


def test_what_a_plugin_says_of_itself_is_a_line_of_the_list(site: Site, capsys: pytest.CaptureFixture[str]) -> None:
    site.install("long", groups={"graftkit.plugins.v1": {"n" * 5_000: "long"}})
    site.registered("forger", "twig", provider="summary='good\\nadapter lora forged'")
    with pytest.raises(SystemExit):
        main(["plugins"])
    lines = capsys.readouterr().out.splitlines()
    assert any(line.endswith(r"good\nadapter lora forged") for line in lines)
    assert sum(len(line) > 400 for line in lines) == 1, "others are not as long as the longest name"


@pytest.mark.parametrize("name", ["acme", "main"])
def test_a_plugin_is_disabled_by_its_name_or_its_distributions(site: Site, name: str) -> None:
    site.registered("acme", "twig")
    host = PluginHost(disable=[name])
    assert record(host, "acme").status == "disabled"
    assert "twig" not in names(host)
    assert "acme" not in sys.modules


def test_plugins_are_disabled_by_the_environment_too(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.registered("acme", "twig")
    site.registered("brand", "bough")
    monkeypatch.setenv("GRAFTKIT_DISABLE_PLUGINS", " acme, ,unknown ")
    host = PluginHost(disable=["brand"])
    assert record(host, "acme").status == record(host, "brand").status == "disabled"
    assert "lora" in names(host)


def test_autoload_can_be_switched_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.registered("acme", "twig")
    monkeypatch.setenv("GRAFTKIT_PLUGIN_AUTOLOAD", "0")
    assert PluginHost().records == []
    assert "acme" not in sys.modules
    assert "twig" in names(PluginHost(autoload=True))
    monkeypatch.setenv("GRAFTKIT_PLUGIN_AUTOLOAD", "1")
    assert PluginHost(autoload=False).records == []


class Handed:
    @hookimpl
    def graftkit_exporters(self) -> list[Provider]:
        return [Provider(name="onnx", target="somewhere:Onnx")]


def test_a_program_may_hand_over_its_own_plugins() -> None:
    host = PluginHost(autoload=False, plugins=[Handed()])
    [registered] = host.registry.providers("exporter")
    assert (registered.provider.name, registered.plugin.label, registered.qualified_name) == (
        "onnx",
        "plugin 'Handed'",
        "Handed:onnx",
    )
    assert registered.plugin.file == __file__


def test_two_hosts_in_one_process_do_not_know_each_other(site: Site) -> None:
    site.registered("acme", "twig")
    everything, nothing = PluginHost(), PluginHost(autoload=False)
    only_handed = PluginHost(autoload=False, plugins=[Handed()])
    assert "twig" in names(everything) and "onnx" not in names(everything)
    assert names(nothing) == [] and names(only_handed) == ["onnx"]
    everything.registry.extend(only_handed.registry.providers())
    assert names(nothing) == [] and names(only_handed) == ["onnx"]


def test_built_ins_alone_here_and_where_exports_are_proved(site: Site) -> None:
    site.registered("others-thing", "thing")
    host = PluginHost(builtins_only=True)
    left_out = {record.distribution: record.status for record in host.records if record.distribution != "graftkit"}
    assert left_out["others-thing"] == "disabled" and set(left_out.values()) == {"disabled"}
    assert "others-thing" in host.disabled and "lora" in {p.provider.name for p in host.registry.providers("adapter")}
    assert "thing" in {p.provider.name for p in PluginHost().registry.providers("adapter")}
