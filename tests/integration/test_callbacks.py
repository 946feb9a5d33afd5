"""A callback follows one run with settings of its own, and is told all that happens in it."""

from __future__ import annotations

import importlib
import json
import re
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.errors import GraftkitError, HookError, PluginError, RecipeError
from graftkit.recipe.json_schema import recipe_schema
from graftkit.recipe.load import load_recipe

SOURCE = """
import json, random
from pathlib import Path
from pydantic import Field
from graftkit import Provider, ProviderConfig, RecipePath, ReportChart, ReportSection, ReportTable, ReportText, hookimpl

class Config(ProviderConfig):
    path: RecipePath = Field(default="", description="where to write")
    label: str = Field(default="", description="what each line begins with")

class NeedsAPath(ProviderConfig):
    path: RecipePath = Field(description="where to write")

class Log:
    made = []
    def __init__(self, config):
        self.config, self.lines = config, []
        Log.made.append(self)
    def say(self, run, *said):
        random.seed(0)
        self.lines.append([run.id, *said])
    @hookimpl
    def graftkit_run_started(self, run): self.say(run, "started", run.status)
    @hookimpl
    def graftkit_stage_finished(self, run, stage): self.say(run, "stage", stage.name)
    @hookimpl
    def graftkit_step_finished(self, run, step): self.say(run, "step", step.step, step.loss)
    @hookimpl
    def graftkit_checkpoint_written(self, run, checkpoint):
        assert (checkpoint.folder / "checkpoint.json").is_file() or list(checkpoint.folder.iterdir())
        self.say(run, "checkpoint", checkpoint.step)
    @hookimpl
    def graftkit_evaluation_finished(self, run, evaluation):
        self.say(run, "evaluation", evaluation.when, evaluation.step, evaluation.holdout_loss)
    @hookimpl
    def graftkit_export_finished(self, run, export):
        assert (export.folder / "graftkit.json").is_file()
        self.say(run, "export", export.name, export.format, export.proof["status"])
    @hookimpl
    def graftkit_report_sections(self, run):
        return [ReportSection("<script>alert(1)</script>", [
            ReportText("<b>bold</b> \\u202e" + "x" * 3000), ReportTable(["a<i>"], [["<img src=x>"], [3]]),
            ReportChart({"</svg><script>": [(1, 1.0), (2, float("nan")), (3, 2.0)]}, y_label="<watt>")])]
    @hookimpl
    def graftkit_run_finished(self, run):
        self.say(run, "finished", run.status, run.error and dict(run.error), json.loads(json.dumps(run.metrics)))

class Needing(Log): pass

class Raising:
    def __init__(self, config): pass
    @hookimpl
    def graftkit_checkpoint_written(self): raise ValueError("disk full")
    @hookimpl
    def graftkit_report_sections(self): return ["<b>"]

@hookimpl
def graftkit_callbacks():
    return [Provider("log", f"{__name__}:Log", config=f"{__name__}:Config", summary="logs"),
            Provider("needing", f"{__name__}:Needing", config=f"{__name__}:NeedsAPath"),
            Provider("raising", f"{__name__}:Raising", config=f"{__name__}:NeedsAPath")]
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "run_log.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("run_log")
    del sys.modules["run_log"]


def host_of(plugin: Any) -> graftkit.PluginHost:
    return graftkit.PluginHost(plugins=[plugin])


def test_a_callback_is_told_all_that_happens_in_its_run(plugin: Any, make_recipe: Any, tmp_path: Path) -> None:
    recipe = make_recipe(
        evaluation={"every": 3},
        export=["merged"],
        plugins={"log": {"path": "log.json"}},
        training={"steps": 6, "tokens_per_step": 256, "device": "cpu", "checkpoint_every": 4},
    )
    found = graftkit.run(recipe, out=tmp_path / "run", host=host_of(plugin))
    [made] = plugin.Log.made
    [run_id] = {line[0] for line in made.lines}
    assert run_id == found.manifest["id"] and len(run_id) == 32
    told = [line[1:] for line in made.lines]
    assert [line[1] for line in told if line[0] == "step"] == [1, 2, 3, 4, 5, 6]
    assert [line[1] for line in told if line[0] == "checkpoint"] == [4, 6]
    assert [line[1:3] for line in told if line[0] == "evaluation"] == [
        ["before", 0],
        ["training", 3],
        ["training", 6],
        ["after", 6],
    ]
    assert told[-1] == ["finished", "finished", None, found.manifest["metrics"]]
    assert ["export", "merged", "merged", "proved"] in told and told[0] == ["started", "running"]
    assert made.config.path == str(Path.cwd() / "log.json")
    assert found.manifest["recipe"]["plugins"] == {"disable": [], "log": {"path": made.config.path, "label": ""}}
    assert [facts["name"] for facts in found.manifest["providers"]["callbacks"]] == ["log"]
    assert any("Python's random state, which core put back" in notice for notice in found.manifest["notices"])

    page = (found.folder / "report.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page and "&lt;img src=x&gt;" in page
    assert "<script" not in page and "<img" not in page and "<b>bold" not in page and "\u202e" not in page
    assert "&lt;watt&gt;" in page and "(3,013 characters)" in page and "plugin &#39;run_log&#39;" in page

    again = graftkit.run(
        {**recipe, "export": [], "training": {**recipe["training"], "steps": 7}},
        out=tmp_path / "run",
        resume=True,
        host=host_of(plugin),
    )
    assert again.manifest["id"] == run_id and len(plugin.Log.made) == 2


def test_runs_side_by_side_have_an_object_each(plugin: Any, make_recipe: Any, tmp_path: Path) -> None:
    host, ended = host_of(plugin), list[Any]()

    def work(name: str, steps: int) -> None:
        training = {"steps": steps, "tokens_per_step": 256, "device": "cpu"}
        recipe = make_recipe(training=training, plugins={"log": {"label": name}})
        ended.append(graftkit.run(recipe, out=tmp_path / name, host=host))

    out = sys.stdout
    threads = [threading.Thread(target=work, args=(f"run{steps}", steps)) for steps in (4, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sys.stdout is out and len(ended) == len(plugin.Log.made) == 2
    for made in plugin.Log.made:
        assert len({line[0] for line in made.lines}) == 1
        steps = [line[2] for line in made.lines if line[1] == "step"]
        assert steps == list(range(1, int(made.config.label[3:]) + 1))
    assert len({made.lines[0][0] for made in plugin.Log.made}) == 2


@pytest.mark.parametrize(
    ("plugins", "said"),
    [
        ({"lgo": {}}, "unknown key 'plugins.lgo'.*Did you mean 'log'"),
        ({"log": {"pth": "x"}}, "unknown key 'plugins.log.pth'.*Did you mean 'path'"),
        ({"log": {"path": 3}}, "plugins.log.path: must be a string, not 3"),
        ({"needing": {}}, "'plugins.needing.path' is missing"),
        ({"log": True}, "plugins.log: a callback's settings are a mapping"),
        ({"disabled": ["x"]}, "plugins.disabled: a callback's settings.*'disable'"),
    ],
)
def test_wrong_settings_are_refused_before_work(
    plugin: Any, make_recipe: Any, tmp_path: Path, plugins: Any, said: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        graftkit.run(make_recipe(plugins=plugins), out=tmp_path / "run", host=host_of(plugin))
    assert re.search(said, str(caught.value), re.DOTALL)
    assert not (tmp_path / "run").exists() and not plugin.Log.made


def test_a_path_starts_at_the_recipes_folder_and_at_the_current_one_for_set(
    plugin: Any, make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml
    from graftkit.recipe.bind import bind

    folder = tmp_path / "recipes"
    folder.mkdir()
    (folder / "mine.yaml").write_text(yaml.safe_dump(make_recipe(plugins={"log": {"path": "log.db"}})))
    monkeypatch.chdir(tmp_path)
    for overrides, expected in (([], folder / "log.db"), (["plugins.log.path=log.db"], tmp_path / "log.db")):
        [choice] = bind(load_recipe("recipes/mine.yaml", overrides), host_of(plugin)).callbacks
        assert choice.config.path == str(expected)  # type: ignore[attr-defined]
    section = recipe_schema(host_of(plugin))["$defs"]["PluginsSection"]
    assert section["properties"]["log"]["properties"]["path"]["description"] == "where to write"


def test_a_run_that_is_refused_is_told_of_its_end(plugin: Any, make_recipe: Any, tmp_path: Path) -> None:
    recipe = make_recipe(adapter={"use": "lora", "rank": 4, "targets": ["nowhere"]})
    with pytest.raises(GraftkitError):
        graftkit.run(recipe, out=tmp_path / "run", host=host_of(plugin))
    for made in plugin.Log.made:  # made only where the request had passed the plan
        assert made.lines[-1][1:3] == ["finished", "failed"] and "nowhere" in made.lines[-1][3]["message"]
    assert not (tmp_path / "run").exists()


def test_new_hooks_that_raise_are_named_and_the_run_goes_on_with_resume(
    plugin: Any, make_recipe: Any, tmp_path: Path
) -> None:
    recipe = make_recipe(plugins={"raising": {"path": ""}})
    with pytest.raises(HookError, match="its hook graftkit_checkpoint_written raised ValueError: disk full"):
        graftkit.run(recipe, out=tmp_path / "run", host=host_of(plugin))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "failed" and manifest["error"]["where"] == "plugin 'run_log'"
    assert plugin.Log.made[0].lines[-1][2:4] == ["failed", manifest["error"]]
    del plugin.Raising.graftkit_checkpoint_written
    with pytest.raises(HookError, match="graftkit_report_sections returned a list with '<b>'"):
        graftkit.run(recipe, out=tmp_path / "run", resume=True, host=host_of(plugin))
    left_out = graftkit.PluginHost(plugins=[plugin], disable=["run_log"])
    found = graftkit.run({**recipe, "plugins": {}}, out=tmp_path / "run", resume=True, host=left_out)
    assert found.manifest["status"] == "finished"


def test_a_callback_that_can_not_be_made_leaves_nothing(
    plugin: Any, make_recipe: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugin.Log, "__init__", lambda self, config: 1 / 0)
    with pytest.raises(PluginError, match="callback 'log' could not be made: ZeroDivisionError"):
        graftkit.run(make_recipe(), out=tmp_path / "run", host=host_of(plugin))
    assert not (tmp_path / "run").exists()
