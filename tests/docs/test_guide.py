"""The plugin guide shows what `toolkit plugin new` writes, and the embedding page's service runs."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import types
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import graftkit
import pytest
from forked_children import children_forked
from graftkit.cli.main import main
from graftkit.interfaces.kinds import KINDS
from graftkit.scaffold.new import new_plugin

ROOT = Path(__file__).parents[2]
SHOWN = {
    "quantizer": "absmax",
    "adapter": "factors",
    "tokenizer": "bytes",
    "model-source": "npz",
    "exporter": "deltas",
    "initializer": "pulled",
    "reader": "rec",
    "format": "trivia",
    "objective": "margin",
    "metric": "overlap",
    "callback": "losses",
}


def python_blocks(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("kind", KINDS)
def test_the_guide_shows_the_files_that_are_written(tmp_path: Path, kind: Any) -> None:
    """Those files are installed and run by the tests of scaffolds."""
    project = new_plugin(SHOWN[kind], kind, tmp_path)
    page = (ROOT / f"docs/plugins/{kind}.md").read_text(encoding="utf-8")
    for path in project.rglob("*"):
        if path.suffix in (".py", ".toml"):
            assert path.read_text() in page, path.name
    assert all(
        block in "".join(p.read_text() for p in project.rglob("*.py"))
        for block in python_blocks(f"docs/plugins/{kind}.md")
    )


def test_the_page_of_commands_shows_the_files_that_are_written(tmp_path: Path) -> None:
    project = new_plugin("runs", "command", tmp_path)
    page = (ROOT / "docs/plugins/command.md").read_text(encoding="utf-8")
    assert all(path.read_text() in page for path in project.rglob("*.py"))


def test_what_plugins_are_tried_on_end_to_end_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    section = (ROOT / "docs/plugins.md").read_text(encoding="utf-8").partition("## Try it end to end")[2]
    section = section.partition("\n## ")[0]
    [script] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    [console] = re.findall(r"```console\n(.*?)```", section, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    for line in console.splitlines():
        command, *arguments = line.removeprefix("$ ").split()
        assert command == "toolkit"
        with children_forked(), pytest.raises(SystemExit) as done:
            main(arguments)
        assert not done.value.code, line
    assert (tmp_path / "runs/mine/report.html").is_file()


def test_the_first_example_of_embedding_runs(
    tiny_model: Path, chat_records: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(chat_records), "max_length": 64},
        "training": {"steps": 2, "tokens_per_step": 256},
    }
    exec(python_blocks("docs/embedding.md")[0], {"RECIPE": recipe, "FOLDER": tmp_path / "run"})
    assert len(capsys.readouterr().out.split()) == 3


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = types.ModuleType("embedding_example")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(python_blocks("docs/embedding.md")[1], module.__dict__)
    module.Service.folder = tmp_path  # type: ignore[attr-defined]
    servers: list[Any] = []

    def start() -> str:
        """Starts the service, anew where it runs, and returns its address."""
        for former in servers:
            module.stop(former)  # type: ignore[attr-defined]
            module.Service.jobs.clear()  # type: ignore[attr-defined]
        servers[:] = [module.serve(0)]  # type: ignore[attr-defined]
        threading.Thread(target=servers[0].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[0].server_address[1]}/runs"

    yield start
    module.stop(servers[0])  # type: ignore[attr-defined]


def ask(url: str, method: str = "GET", data: Any = None) -> Any:
    body = None if data is None else json.dumps(data).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data=body, method=method), timeout=60) as answer:
        return json.loads(answer.read())


def wait_for(url: str, done: Any) -> Any:
    for _ in range(600):
        facts = ask(url)
        if done(facts):
            return facts
        time.sleep(0.1)
    raise AssertionError(facts)


def test_the_service_starts_watches_and_stops_runs(start: Any, tiny_model: Path, chat_records: Path) -> None:
    service = start()
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(chat_records), "max_length": 64},
        "training": {"steps": 3, "tokens_per_step": 256},
    }
    short = ask(service, "POST", recipe)["id"]
    long = ask(service, "POST", {**recipe, "training": {"steps": 100_000, "tokens_per_step": 256}})["id"]
    wrong = ask(service, "POST", {**recipe, "adapter": "loraa"})["id"]
    assert wait_for(f"{service}/{short}", lambda facts: facts["status"] == "finished")["metrics"]["after"]
    told = wait_for(f"{service}/{wrong}", lambda facts: facts["status"] == "provider")["error"]
    assert told["where"] == "recipe.adapter.use" and "loraa" in told["message"]
    wait_for(f"{service}/{long}", lambda facts: facts.get("step", 0) >= 2)
    ask(f"{service}/{long}", "DELETE")
    stopped = wait_for(f"{service}/{long}", lambda facts: facts["status"] == "cancelled")
    assert stopped["error"]["message"] == "the client asked" and stopped["seconds_left"] > 0
    kept = ask(service, "POST", {**recipe, "training": {"steps": 100_000, "tokens_per_step": 256}})["id"]
    reached = wait_for(f"{service}/{kept}", lambda facts: facts.get("step", 0) >= 2)["step"]
    service = start()  # as after SIGTERM: what was running goes on, what was over is forgotten
    assert wait_for(f"{service}/{kept}", lambda facts: facts.get("step", 0))["step"] > reached
    ask(f"{service}/{kept}", "DELETE")
    wait_for(f"{service}/{kept}", lambda facts: facts["status"] == "cancelled")
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(f"{service}/{short}")


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "told"),
    [
        ("POST", "", b"no JSON", 400, "Expecting value"),
        ("POST", "", b"[" * 100_000, 400, "maximum recursion depth"),
        ("POST", "", b"[1]", 400, "a recipe is a JSON object"),
        ("POST", "", b'{"adaptor": "lora"}', 400, "unknown key 'adaptor'"),
        ("POST", "/nothing", b"{}", 404, "POST /runs"),
        ("GET", "/nothing", None, 404, "no such run"),
        ("DELETE", "/nothing", None, 404, "no such run"),
    ],
)
def test_the_service_refuses(start: Any, method: str, path: str, body: Any, status: int, told: str) -> None:
    service = start()
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(service + path, data=body, method=method), timeout=60)
    assert refused.value.code == status and told in str(json.load(refused.value)["error"])


def test_two_hosts_with_different_plugins_live_in_one_process() -> None:
    class Mine:
        @graftkit.hookimpl
        def graftkit_adapters(self) -> list[graftkit.Provider]:
            return [graftkit.Provider(name="mine", target="x:Y")]

    first, second = graftkit.PluginHost(plugins=[Mine()]), graftkit.PluginHost()
    names = [
        {registered.provider.name for registered in host.registry.providers("adapter")} for host in (first, second)
    ]
    assert "mine" in names[0] and "mine" not in names[1]
