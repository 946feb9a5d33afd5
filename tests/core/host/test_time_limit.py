"""A plugin that hangs is named within the stated time, and what needs no plugin imports none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
from graftkit import PluginHost
from graftkit.errors import PluginError
from graftkit.host import hooks as module
from graftkit.host.discovery import IMPORT_SECONDS
from graftkit.host.lifecycle import RunInfo

Site = Any  # tests/core/host/conftest.py

HANGING = {
    "sleeps": "import time\ntime.sleep(60)",
    "computes": "while True:\n    pass",
    "waits for a lock": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
    "waits for a socket": "import socket\na, b = socket.socketpair()\nwith a, b:\n    a.recv(1)",
    "takes every error": (
        "import time\nwhile True:\n    try:\n        time.sleep(60)\n    except Exception:\n        pass"
    ),
    "hangs in a hook": (
        "import time\nfrom graftkit import hookimpl\n@hookimpl\ndef graftkit_adapters():\n    time.sleep(60)"
    ),
}


IDLE = "from graftkit import hookimpl\n@hookimpl\ndef graftkit_adapters():\n    return []\n"


def toolkit(site: Site, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from graftkit.cli.main import main; main(sys.argv[1:])"
    path = os.pathsep.join([str(site.folder), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("source", HANGING.values(), ids=list(HANGING))
def test_an_import_that_hangs_is_named_and_ended(
    site: Site, monkeypatch: pytest.MonkeyPatch, capfd: Any, source: str
) -> None:
    site.install("slow", source, version="0.7")
    site.registered("well", "bough")
    monkeypatch.setenv("GRAFTKIT_PLUGIN_IMPORT_SECONDS", "0.5")
    start = time.monotonic()
    host = PluginHost()
    assert time.monotonic() - start < 10
    [record] = [record for record in host.records if record.distribution == "slow"]
    assert record.status == "failed" and "took longer than 0.5 s and was ended" in record.reason
    assert "bough" in {registered.provider.name for registered in host.registry.providers()}
    told = capfd.readouterr().err
    assert told.startswith("plugin 'main' of slow 0.7: its ") and "has taken 0.5 s so far" in told
    assert "GRAFTKIT_PLUGIN_IMPORT_SECONDS gives it more time, GRAFTKIT_DISABLE_PLUGINS=slow leaves it out" in told


def test_one_that_takes_half_the_limit_is_left_alone(site: Site, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    site.install(
        "slow",
        f"import time\ntime.sleep(0.5)\n{IDLE}",
    )
    monkeypatch.setenv("GRAFTKIT_PLUGIN_IMPORT_SECONDS", "30")
    [record] = [record for record in PluginHost().records if record.distribution == "slow"]
    assert record.status == "active" and record.import_seconds >= 0.5 and capfd.readouterr().err == ""


def test_the_limit_is_the_documented_one_and_can_be_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    assert IMPORT_SECONDS == 10
    monkeypatch.setenv("GRAFTKIT_PLUGIN_IMPORT_SECONDS", "0")
    PluginHost()
    for wrong in ("soon", "-1", "nan", "inf"):
        monkeypatch.setenv("GRAFTKIT_PLUGIN_IMPORT_SECONDS", wrong)
        with pytest.raises(PluginError, match="GRAFTKIT_PLUGIN_IMPORT_SECONDS: is no number of seconds"):
            PluginHost()


def test_an_import_that_is_ended_inside_a_librarys_is_fatal(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    (site.folder / "big_library").mkdir()
    (site.folder / "big_library" / "__init__.py").write_text("import big_library.part\nimport time\ntime.sleep(60)")
    (site.folder / "big_library" / "part.py").write_text("")
    site.install("slow", "import big_library", version="0.7")
    monkeypatch.setenv("GRAFTKIT_PLUGIN_IMPORT_SECONDS", "0.5")
    with pytest.raises(PluginError, match=r"slow 0\.7: .* in the middle of importing big_library") as caught:
        PluginHost()
    assert "GRAFTKIT_DISABLE_PLUGINS=slow" in caught.value.hint


def test_in_a_thread_it_is_told_and_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    site.install(
        "slow",
        f"import time\ntime.sleep(1.5)\n{IDLE}",
    )
    monkeypatch.setenv("GRAFTKIT_PLUGIN_IMPORT_SECONDS", "0.5")
    hosts: list[PluginHost] = []
    thread = threading.Thread(target=lambda: hosts.append(PluginHost()))
    thread.start()
    thread.join()
    assert {record.status for record in hosts[0].records} == {"active"}
    assert "plugin 'main' of slow 1.0: its import has taken 0.5 s so far" in capfd.readouterr().err


def test_a_lifecycle_hook_that_hangs_is_named(site: Site, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    site.install(
        "slow",
        "import time\nfrom graftkit import hookimpl\n@hookimpl\ndef graftkit_run_started(run):\n    time.sleep(1.5)\n",
    )
    monkeypatch.setattr(module, "_HOOK_SECONDS", 0.5)
    host = PluginHost()
    host.broadcast("graftkit_run_started", run=RunInfo(site.folder, {}))
    assert "plugin 'main' of slow 1.0: its hook graftkit_run_started has taken 0.5 s so far" in capfd.readouterr().err
    [record] = [record for record in host.records if record.distribution == "slow"]
    assert record.hook_seconds >= 1.5


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--version"], ["run", "--help"], ["plugin", "--help"]])
def test_help_imports_no_plugin(site: Site, arguments: list[str]) -> None:
    site.install("slow", "import time\nprint('CANARY')\ntime.sleep(600)\n# graftkit_commands")
    done = toolkit(site, *arguments)
    assert done.returncode == 0 and "CANARY" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", ["toolkit ", "toolkit run --", "toolkit own "])
def test_completion_imports_no_plugin(site: Site, words: str) -> None:
    site.install("slow", "import time\nprint('CANARY')\ntime.sleep(600)\n# graftkit_commands")
    done = toolkit(site, _TOOLKIT_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=str(len(words.split(" ")) - 1))
    assert done.returncode == 0, done.stderr
    assert "CANARY" not in done.stdout + done.stderr and ("own" in words or done.stdout)


@pytest.mark.parametrize("arguments", [["nosuch"], ["plugins"], ["schema"], ["plugin", "check", "lora", "-x"]])
def test_a_disabled_plugin_is_imported_by_no_command(site: Site, arguments: list[str]) -> None:
    site.install("acme", "print('CANARY')\n# graftkit_commands")
    done = toolkit(site, *arguments, GRAFTKIT_DISABLE_PLUGINS="acme")
    assert "CANARY" not in done.stdout + done.stderr


COMMAND = """
import click
from graftkit import hookimpl

@click.command("prune")
def prune():
    click.echo("pruned")

@hookimpl
def graftkit_commands():
    return [prune]
"""


def test_a_plugins_command_is_found_by_its_name_and_listed_with_the_plugin(site: Site) -> None:
    site.install("acme", COMMAND, version="2.1")
    assert toolkit(site, "prune").stdout == "pruned\n"
    assert "prune" not in toolkit(site, "--help").stdout.partition("Commands:")[2]
    assert "command" in toolkit(site, "plugins").stdout and "prune" in toolkit(site, "plugins").stdout
    assert "'prune'" in toolkit(site, "prun").stderr
    assert toolkit(site, "prune", GRAFTKIT_DISABLE_PLUGINS="acme").returncode == 2


def test_what_plugins_do_to_others_is_told_on_standard_error(site: Site) -> None:
    site.install("acme", f"import os\nprint('hello')\nos.environ['CANARY'] = '1'\n{COMMAND}", version="2.1")
    done = toolkit(site, "plugins", "--json")
    assert done.stdout.startswith('{"plugins"') and done.stdout.count("\n") == 1
    assert "hello" in done.stderr
    assert "note: plugin 'main' of acme 2.1: its import changed the environment (CANARY)" in done.stderr
