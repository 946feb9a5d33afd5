"""What a run says of plugins holds for whoever looks at it later, and in the process that proves an export."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.cli.main import main
from graftkit.errors import ExportError, ProviderError
from graftkit.flow.answering.reload import reload
from graftkit.flow.exports.probes import PROBES_FILE, Probes
from graftkit.flow.exports.proof import prove
from graftkit.host.records import LONGEST_NOTICE, MOST_NOTICES, PluginRecord
from graftkit.report.run_of_folder import run_around, run_of

LOUD = """
import warnings
from graftkit import Provider, hookimpl
from graftkit_exporters.merged import MergedExporter

class Loud:
    proved_with = ("transformers",)
    def __init__(self): self._merged = MergedExporter()
    def refusal(self, planned): return None
    def export(self, trained, folder): return self._merged.export(trained, folder)
    def tolerance(self): return 1e-5
    def logits(self, request):
        warnings.warn("red \\x1b[31m\\n hf_canarycanarycanarycanary " + "long " * 1000)
        if (request.folder / "off").exists():
            raise ImportError("a library is gone")
        return self._merged.logits(request)

@hookimpl
def graftkit_exporters():
    return [Provider(name="loud", target="loud:Loud")]
"""

UNWANTED = """
from pathlib import Path
from graftkit import Provider, hookimpl

Path(__file__).with_name("imported").touch()

@hookimpl
def graftkit_adapters():
    return [Provider(name="unwanted", target="unwanted:Thing")]
"""


def install(site: Path, name: str, source: str) -> None:
    site.mkdir(exist_ok=True)
    (site / f"{name}.py").write_text(source)
    info = site / f"{name}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[graftkit.plugins.v1]\nmain = {name}\n")
    importlib.invalidate_caches()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder on the path with an exporter that warns, and a plugin that notes that it was imported."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    install(folder, "loud", LOUD)
    install(folder, "unwanted", UNWANTED)
    yield folder
    for name in ("loud", "unwanted"):
        sys.modules.pop(name, None)


@pytest.fixture
def finished(site: Path, make_recipe: Callable[..., Any], tmp_path: Path) -> graftkit.RunResult:
    """A run whose recipe leaves a plugin out, and whose exporter warns in the process that proves the export."""
    return graftkit.run(make_recipe(export=["loud"], plugins={"disable": ["unwanted"]}), out=tmp_path / "run")


def toolkit(capsys: pytest.CaptureFixture[str], *line: str) -> tuple[int, str]:
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(list(line))
    return int(done.value.code or 0), capsys.readouterr().err


def test_what_a_recipe_leaves_out_and_what_a_proof_warns_of(
    finished: graftkit.RunResult, site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, export = str(finished.folder), str(finished.exports["loud"])
    (told,) = (notice for notice in finished.manifest["notices"] if "red" in notice)
    warned = "warned: UserWarning: red \x1b[31m *** long long"
    assert told.startswith("plugin 'loud' of loud 1.2: logits() of its exporter 'loud' ") and warned in told
    assert len(told) == LONGEST_NOTICE and told.endswith("...")

    base = finished.manifest["recipe"]["model"]["path"]
    lines = (("generate", run, "say 1"), ("generate", export, "say 1"), ("evaluate", base, run), ("verify", export))
    for line in lines:
        code, errors = toolkit(capsys, *line)
        assert code == 0, errors
        assert "note: " in errors and "unwanted" in errors and " is left out, as the run's recipe says" in errors
    assert (
        "note: plugin 'main' of loud 1.2: logits() of its exporter 'loud' warned: UserWarning: red \\x1b[31m" in errors
    )
    assert "canary" not in errors
    list(reload(run).stream("say 1", max_new_tokens=1))
    assert not (site / "imported").exists()

    shutil.rmtree(site / "unwanted-1.2.dist-info")
    for line in (("generate", run, "say 1"), ("evaluate", run, "--answers", "0")):
        code, errors = toolkit(capsys, *line)
        assert code == 0 and "left out" not in errors, "a plugin that is gone by now is no mistake in the request"
    assert graftkit.evaluate(run)[0].measured == finished.after


SCORING = """
from graftkit import Provider, hookimpl

from graftkit_exporters.merged import MergedExporter

class Long:
    def score(self, answered):
        return float(len(answered.answer) > 3)

class Other(MergedExporter):
    pass

class Quiet:
    @hookimpl
    def graftkit_run_started(self, run): pass

@hookimpl
def graftkit_metrics():
    return [Provider(name="long", target="scoring:Long")]

@hookimpl
def graftkit_exporters():
    return [Provider(name="other", target="scoring:Other")]

@hookimpl
def graftkit_callbacks():
    return [Provider(name="quiet", target="scoring:Quiet")]
"""

FOLLOWING = """
from graftkit import Provider, hookimpl

class Following:
    @hookimpl
    def graftkit_run_started(self, run): pass

@hookimpl
def graftkit_callbacks():
    return [Provider(name="following", target="following:Following", requires=("scoring",))]
"""


@pytest.mark.parametrize("objective", ["sft", {"use": "grpo", "group_size": 2, "max_new_tokens": 4}])
def test_a_finished_run_is_used_without_its_other_plugins(
    objective: Any, tmp_path: Path, make_recipe: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its metrics, which may even have been learnt from, its callbacks, and the exporters of other exports.

    What was measured stays, and so does what the manifest says of plugins; who measures answers anew needs a metric.
    """
    for site in ("site", "stays"):
        monkeypatch.syspath_prepend(tmp_path / site)
    install(tmp_path / "site", "scoring", SCORING)
    install(tmp_path / "stays", "following", FOLLOWING)
    answered = {"answers": 1, "max_new_tokens": 2, "metrics": ["long", "exact-match"]}
    recipe = make_recipe(evaluation=answered, objective=objective, export=["other"], proof="later")
    recipe["plugins"] = {"quiet": {}, "following": {}}
    recipe["training"]["steps"] = 1
    run = graftkit.run(recipe, out=tmp_path / "run")
    shutil.rmtree(tmp_path / "site")
    sys.modules.pop("scoring")
    importlib.invalidate_caches()
    found = graftkit.export(run.folder, "peft").run
    assert found is not None and found.metrics == run.metrics
    same = ("recipe", "providers")
    now, then = ({key: manifest[key] for key in same} for manifest in (found.manifest, run.manifest))
    for manifest, count in ((now, 2), (then, 1)):
        assert len(manifest["recipe"].pop("export")) == len(manifest["providers"]["exporters"]) == count
    assert now["providers"].pop("exporters")[0] == then["providers"].pop("exporters")[0]
    assert now == then
    told = [notice for notice in found.manifest["notices"] if "which followed the run" in notice]
    assert len(told) == 2 and "callback quiet" in told[0] and "scoring" in told[1]
    assert Probes.load(run.folder / PROBES_FILE).sketches, "an export that is absent may be quantized"
    assert graftkit.verify(found.exports["peft"]).proof["status"] == "proved"
    assert graftkit.compare([run.folder, run.folder]).differences == []
    list(reload(run.folder).stream("say 1", max_new_tokens=1))
    measured = graftkit.evaluate(run.folder, overrides=["evaluation.answers=0"])[0].measured
    assert measured.holdout_loss == run.after.holdout_loss or objective != "sft"
    with pytest.raises(ProviderError, match="'long'") as refused:
        graftkit.evaluate(run.folder)
    assert "--answers 0" in refused.value.hint
    with pytest.raises(ProviderError, match="'other'"):
        graftkit.export(run.folder, "peft", {"name": "further"}, proof="now")
    (run.folder / "answers-after.json").write_text("{}")
    with pytest.raises(ProviderError, match="'long'"):
        graftkit.export(run.folder, "merged")


def test_what_a_proof_that_fails_warned_of_is_told_too(finished: graftkit.RunResult) -> None:
    told: list[str] = []
    (finished.exports["loud"] / "off").touch()
    with pytest.raises(ExportError, match="a library is gone"):
        prove(finished.exports["loud"], finished.folder / "probes.safetensors", trusted=True, report=told.append)
    assert [notice for notice in told if "exporter 'loud' warned: UserWarning" in notice]


def test_the_word_of_an_export_is_not_taken_for_its_runs(tmp_path: Path) -> None:
    export = tmp_path / "exports" / "merged"
    (export / "base").mkdir(parents=True)
    said = {"graftkit": "1", "status": "finished", "recipe": {"plugins": {"disable": ["mine"]}}}
    (export / "manifest.json").write_text(json.dumps(said))
    assert run_around(export) is None
    (tmp_path / "manifest.json").write_text(json.dumps({**said, "recipe": {"plugins": {"disable": ["theirs"]}}}))
    for folder in (tmp_path, export, export / "base"):
        found = run_of(folder)
        assert found is not None and found.left_out == ["theirs"]
    (tmp_path / "manifest.json").write_text(json.dumps({**said, "recipe": {"plugins": {"disable": [1, "x"]}}}))
    assert run_of(tmp_path).left_out == ["x"]  # type: ignore[union-attr]


def test_a_plugin_that_warns_without_end_is_told_of_so_often_and_no_more() -> None:
    record = PluginRecord("main", "loud", "1.2", "loud")
    for number in [*range(MOST_NOTICES + 5), 0]:
        record.report(f"step {number}\n" + "x" * 10_000)
    assert len(record.notices) == MOST_NOTICES + 1 and "there was more" in record.notices[-1]
    assert all(len(notice) <= LONGEST_NOTICE and "\n" not in notice for notice in record.notices)
