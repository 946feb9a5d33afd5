"""Whatever other people's distributions do, the command works and says what is the matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

ADAPTER = """
from graftkit import Provider, hookimpl

@hookimpl
def graftkit_adapters():
    return [Provider(name="{name}", target="graftkit_adapters.lora:Lora",
                     config="graftkit_adapters.config:LoraConfig"{more})]
"""


@pytest.fixture(scope="module")
def broken(graftkit_wheel_environment: Any, write_project: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An environment in which everything is the matter."""
    folder = tmp_path_factory.mktemp("broken")
    projects = [
        write_project(folder, "gk-raises", "raise RuntimeError('no GPU here')"),
        write_project(
            folder,
            "gk-hook-raises",
            "from graftkit import hookimpl\n@hookimpl\ndef graftkit_adapters():\n    raise OSError('disk on fire')\n",
        ),
        write_project(
            folder, "gk-misspelt", "from graftkit import hookimpl\n@hookimpl\ndef graftkit_adaptors():\n    return []\n"
        ),
        write_project(folder, "gk-future", "raise SystemExit('it was imported')", api=2),
        write_project(folder, "gk-one", ADAPTER.format(name="twin", more="")),
        write_project(folder, "gk-two", ADAPTER.format(name="twin", more="")),
        write_project(folder, "gk-thief", ADAPTER.format(name="lora", more="")),
        write_project(
            folder,
            "gk-needs",
            ADAPTER.format(name="needy", more=', requires=("no_such_lib",), install_hint="pip install no-such-lib"'),
        ),
        write_project(
            folder,
            "gk-run-hook",
            "from graftkit import hookimpl\n@hookimpl\ndef graftkit_step_finished(step):\n    raise KeyError('boom')\n",
        ),
    ]
    for project in projects:
        graftkit_wheel_environment.install(project)
    return graftkit_wheel_environment


def test_each_is_listed_with_what_is_the_matter(broken: Any) -> None:
    found = {name.partition(":")[0]: plugin for name, plugin in broken.plugins().items()}
    told = {name: (plugin["status"], plugin["reason"]) for name, plugin in found.items()}
    assert told["gk-raises"] == ("failed", "RuntimeError: no GPU here")
    assert told["gk-hook-raises"] == ("failed", "OSError: disk on fire")
    assert told["gk-misspelt"][0] == "failed" and "graftkit_adaptors" in told["gk-misspelt"][1]
    assert told["gk-future"][0] == "incompatible" and "API 2" in told["gk-future"][1]
    assert told["gk-one"] == ("active", "")
    (needy,) = found["gk-needs"]["providers"]
    assert (needy["status"], needy["missing"]) == ("missing requirement", ["no_such_lib"])
    assert needy["install_hint"] == "pip install no-such-lib"
    assert found["gk-one"]["file"].endswith("gk_one.py") and found["gk-one"]["import_seconds"] >= 0
    table = broken.toolkit("plugins")
    assert table.returncode == 0 and "disk on fire" in table.stdout and "needs no_such_lib" in table.stdout


def test_they_can_be_left_out_by_flag_and_environment(broken: Any) -> None:
    by_flag = broken.plugins("--disable-plugin", "gk-raises")
    by_environment = broken.plugins(GRAFTKIT_DISABLE_PLUGINS="gk-raises,gk-one")
    assert by_flag["gk-raises:main"]["status"] == by_environment["gk-raises:main"]["status"] == "disabled"
    assert by_environment["gk-one:main"]["status"] == "disabled"
    assert broken.plugins(GRAFTKIT_PLUGIN_AUTOLOAD="0") == {}


@pytest.fixture
def recipe(tiny_model: Path, chat_records: Path, tmp_path: Path) -> Any:
    def write(adapter: str) -> Path:
        path = tmp_path / "recipe.yaml"
        path.write_text(
            f"model: {tiny_model}\ndata: {{train: {chat_records}, max_length: 64}}\nadapter: {adapter}\n"
            "training: {steps: 3, tokens_per_step: 256}\n"
        )
        return path

    return write


@pytest.mark.parametrize(
    ("adapter", "told"),
    [
        ("twin", ["plugin 'main' of gk-one 0.3", "plugin 'main' of gk-two 0.3", "'gk-one:twin'"]),
        ("needy", ["no_such_lib", "pip install no-such-lib"]),
        ("nothing", ["no adapter is called 'nothing'", "plugin 'main' of gk-raises 0.3 (failed", "no GPU here"]),
    ],
)
def test_only_who_asks_for_a_broken_one_gets_an_error(broken: Any, recipe: Any, adapter: str, told: list[str]) -> None:
    done = broken.toolkit("plan", str(recipe(adapter=adapter)))
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all(fragment in done.stderr for fragment in told), done.stderr


@pytest.mark.parametrize(
    ("adapter", "distribution"), [("gk-two:twin", "gk-two"), ("lora", "graftkit"), ("gk-thief:lora", "gk-thief")]
)
def test_names_mean_what_they_say_whatever_else_is_installed(
    broken: Any, recipe: Any, adapter: str, distribution: str
) -> None:
    done = broken.toolkit("plan", str(recipe(adapter=adapter)), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["adapter"]["distribution"] == distribution


def test_a_recipe_can_leave_a_plugin_out_and_a_misspelt_name_is_no_silence(broken: Any, recipe: Any) -> None:
    path = str(recipe(adapter="gk-one:twin"))
    left_out = broken.toolkit("plan", path, "--set", "plugins.disable=[gk-one]")
    assert left_out.returncode == 2 and "gk-one 0.3 (disabled" in left_out.stderr
    misspelt = broken.toolkit("plan", path, "--set", "plugins.disable=[gk-oen]")
    assert misspelt.returncode == 2 and "'gk-one'" in misspelt.stderr


def test_strictness_makes_every_failure_fatal(broken: Any, recipe: Any) -> None:
    done = broken.toolkit("plan", str(recipe(adapter="lora")), GRAFTKIT_STRICT_PLUGINS="1")
    assert done.returncode == 2 and "failed to load" in done.stderr
    listed = broken.toolkit("plugins", GRAFTKIT_STRICT_PLUGINS="1")
    assert listed.returncode == 1 and "disk on fire" in listed.stdout


def test_a_hook_that_raises_stops_the_run_and_the_run_goes_on_without_it(
    broken: Any, recipe: Any, tmp_path: Path
) -> None:
    arguments = ["run", str(recipe(adapter="lora")), "--out", str(tmp_path / "run")]
    done = broken.toolkit(*arguments)
    assert done.returncode == 1 and "plugin 'main' of gk-run-hook 0.3" in done.stderr and "boom" in done.stderr
    again = broken.toolkit(*arguments, "--resume", "--disable-plugin", "gk-run-hook")
    assert again.returncode == 0, again.stderr
    assert "going on after step 1" in again.stderr
