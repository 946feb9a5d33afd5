"""A fresh environment with graftkit's wheel and other people's distributions, as a user would have it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


class Environment:
    """A virtual environment of its own; only the third-party libraries come from the one that tests run in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wheels = folder / "wheels"
        venv.create(folder / "venv", with_pip=False, symlinks=True)
        self.python = folder / "venv" / "bin" / "python"
        site = next((folder / "venv" / "lib").glob("python*")) / "site-packages"
        (site / "libraries.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def install(self, project: Path) -> None:
        """Builds a project's wheel from a copy of it and installs that."""
        source = self.folder / "sources" / project.name
        ignored = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "runs", "dist")
        shutil.copytree(project, source, ignore=ignored)
        wheels = self.wheels / project.name
        self._pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels), str(source))
        (wheel,) = wheels.glob("*.whl")
        self._pip("--python", str(self.python), "install", "--no-deps", "--no-index", str(wheel))

    def _pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def run(self, *arguments: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs Python in the environment."""
        import os

        command = [str(self.python), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd or self.folder, env=os.environ | env)

    def toolkit(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Runs the command in the environment."""
        return self.run("-m", "graftkit", *arguments, **env)

    def plugins(self, *arguments: str, **env: str) -> dict[str, Any]:
        """Returns what `toolkit plugins --json` says of each plugin, by distribution and name."""
        done = self.toolkit("plugins", "--json", *arguments, **env)
        assert done.stdout, done.stderr
        return {f"{p['distribution']}:{p['plugin']}": p for p in json.loads(done.stdout)["plugins"]}


def little_project(folder: Path, name: str, source: str, points: Mapping[str, str] | None = None, api: int = 1) -> Path:
    """Writes a distribution of one module."""
    module = name.replace("-", "_")
    project = folder / name
    project.mkdir(parents=True)
    entries = "\n".join(f'{key} = "{value}"' for key, value in (points or {"main": module}).items())
    (project / "pyproject.toml").write_text(
        dedent(
            f"""\
            [build-system]
            requires = ["hatchling"]
            build-backend = "hatchling.build"
            [project]
            name = "{name}"
            version = "0.3"
            [tool.hatch.build.targets.wheel]
            include = ["{module}.py"]
            [project.entry-points."graftkit.plugins.v{api}"]
            """
        )
        + entries
        + "\n"
    )
    (project / f"{module}.py").write_text(dedent(source))
    return project


@pytest.fixture(scope="module")
def write_project() -> Any:
    """Writes a distribution of one module; see `little_project`."""
    return little_project


@pytest.fixture(scope="module")
def graftkit_wheel_environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with graftkit alone."""
    environment = Environment(tmp_path_factory.mktemp("environment"))
    environment.install(ROOT)
    return environment
