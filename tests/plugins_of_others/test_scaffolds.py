"""`toolkit plugin new` writes projects that install and pass their contracts as generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graftkit.errors import FolderError, RequestError
from graftkit.interfaces.kinds import KINDS
from graftkit.scaffold.new import new_plugin


@pytest.fixture(scope="module")
def scaffolds(graftkit_wheel_environment: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of every kind, generated and installed."""
    folder = tmp_path_factory.mktemp("scaffolds")
    for kind in (*KINDS, "command"):
        done = graftkit_wheel_environment.toolkit("plugin", "new", f"my-{kind}", "--kind", kind, "--in", str(folder))
        assert done.returncode == 0, done.stderr
        graftkit_wheel_environment.install(folder / f"graftkit-my-{kind}")
    return folder


@pytest.mark.parametrize("kind", [*KINDS, "command"])
def test_a_generated_project_passes_its_contract(graftkit_wheel_environment: Any, scaffolds: Path, kind: str) -> None:
    project = scaffolds / f"graftkit-my-{kind}"
    done = graftkit_wheel_environment.run("-m", "pytest", "-q", str(project / "tests"), cwd=project)
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout


@pytest.mark.parametrize("kind", ["callback", "metric", "objective", "quantizer"])
def test_an_installed_plugin_is_checked_without_a_test_file(
    graftkit_wheel_environment: Any, scaffolds: Path, kind: str
) -> None:
    done = graftkit_wheel_environment.toolkit("plugin", "check", f"graftkit-my-{kind}", "--quiet")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


def test_a_command_has_no_contract_and_that_is_said(graftkit_wheel_environment: Any, scaffolds: Path) -> None:
    done = graftkit_wheel_environment.toolkit("plugin", "check", "graftkit-my-command")
    assert done.returncode == 0, done.stderr
    assert "toolkit my-command: no contract covers commands" in done.stdout
    assert graftkit_wheel_environment.plugins()["graftkit-my-command:my-command"]["commands"] == ["my-command"]


def test_each_is_listed_with_its_origin(graftkit_wheel_environment: Any, scaffolds: Path) -> None:
    plugins = graftkit_wheel_environment.plugins()
    for kind in KINDS:
        plugin = plugins[f"graftkit-my-{kind}:my-{kind}"]
        assert plugin["status"] == "active" and plugin["version"] == "0.1.0"
        assert [(p["kind"], p["name"], p["status"]) for p in plugin["providers"]] == [(kind, f"my-{kind}", "ready")]


def test_a_folder_that_is_there_is_not_written_into(graftkit_wheel_environment: Any, scaffolds: Path) -> None:
    done = graftkit_wheel_environment.toolkit(
        "plugin", "new", "my-adapter", "--kind", "adapter", "--in", str(scaffolds)
    )
    assert done.returncode == 2 and "there is such a folder already" in done.stderr


@pytest.mark.parametrize("name", ["My", "my_plugin", "-x", "class", "graftkit-"])
def test_a_name_that_is_no_name_is_refused(graftkit_wheel_environment: Any, name: str, tmp_path: Path) -> None:
    done = graftkit_wheel_environment.toolkit("plugin", "new", "--kind", "adapter", "--in", str(tmp_path), "--", name)
    assert done.returncode == 2 and name in done.stderr and not list(tmp_path.iterdir())


def test_a_name_longer_than_files_names_and_a_file_for_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="the name has 300 letters"):
        new_plugin("x" * 300, "adapter", tmp_path)
    (tmp_path / "file").symlink_to("nowhere")
    with pytest.raises(FolderError, match="it is no folder"):
        new_plugin("my-adapter", "adapter", tmp_path / "file")
