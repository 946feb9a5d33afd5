"""Lifecycle hooks reach every plugin, and a plugin that raises in one is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graftkit import PluginHost, hookimpl
from graftkit.errors import HookError, RunError
from graftkit.host.lifecycle import CheckpointInfo, ExportInfo, RunInfo, StageInfo

Site = Any  # tests/core/host/conftest.py
RUN = RunInfo(Path("runs/x"), {})


class Recorder:
    def __init__(self, name: str, calls: list[tuple[str, object]]) -> None:
        self.__name__ = name
        self.calls = calls

    @hookimpl
    def graftkit_run_started(self, run: RunInfo) -> None:
        self.calls.append((self.__name__, run))

    @hookimpl
    def graftkit_stage_finished(self, stage: StageInfo) -> None:
        self.calls.append((self.__name__, stage))


class Early(Recorder):
    @hookimpl(tryfirst=True)
    def graftkit_run_started(self, run: RunInfo) -> None:
        self.calls.append((self.__name__, run))


class Late(Recorder):
    @hookimpl(trylast=True)
    def graftkit_run_started(self, run: RunInfo) -> None:
        self.calls.append((self.__name__, run))


def test_every_plugin_is_called_once_with_an_object_of_its_own() -> None:
    calls: list[tuple[str, object]] = []
    host = PluginHost(autoload=False, plugins=[Recorder("a", calls), Recorder("b", calls)])
    host.broadcast("graftkit_run_started", run=RUN)
    assert sorted(name for name, _ in calls) == ["a", "b"]
    assert [given for _, given in calls] == [RUN, RUN]
    assert len({id(given) for given in (RUN, *(given for _, given in calls))}) == 3


def test_a_plugin_takes_only_the_arguments_that_it_names() -> None:
    calls: list[tuple[str, object]] = []
    stage = StageInfo("corpus", 0.1)
    PluginHost(autoload=False, plugins=[Recorder("a", calls)]).broadcast(
        "graftkit_stage_finished", run=RUN, stage=stage
    )
    assert calls == [("a", stage)]


def test_tryfirst_goes_first_trylast_last_and_otherwise_the_last_registered_first() -> None:
    calls: list[tuple[str, object]] = []
    plugins = [Early("early", calls), Recorder("a", calls), Late("late", calls), Recorder("b", calls)]
    PluginHost(autoload=False, plugins=plugins).broadcast("graftkit_run_started", run=RUN)
    assert [name for name, _ in calls] == ["early", "b", "a", "late"]


@pytest.mark.parametrize("statement", ["raise ValueError('disk  on\\n fire')", "raise SystemExit('disk on fire')"])
def test_a_hook_that_raises_is_named_with_its_plugin(site: Site, statement: str) -> None:
    source = f"""\
    from graftkit import hookimpl

    @hookimpl
    def graftkit_run_started(run):
        {statement}
    """
    site.install("acme", source, version="1.5")
    with pytest.raises(HookError) as caught:
        PluginHost().broadcast("graftkit_run_started", run=RUN)
    assert caught.value.where == "plugin 'main' of acme 1.5"
    assert "its hook graftkit_run_started raised " in caught.value.message
    assert caught.value.message.endswith("disk on fire")
    assert caught.value.hint.endswith("--disable-plugin main")
    assert caught.value.exit_code == 1


@pytest.mark.parametrize("place", ["", "http://localhost:5000"])
def test_a_hook_that_raises_an_error_of_graftkits_says_its_place_and_its_remedy(place: str) -> None:
    class Unreachable:
        @hookimpl
        def graftkit_run_started(self) -> None:
            raise RunError("no server answers", where=place, hint="Start it.")

    with pytest.raises(HookError) as caught:
        PluginHost(autoload=False, plugins=[Unreachable()]).broadcast("graftkit_run_started", run=RUN)
    said = f"{place}: no server answers" if place else "no server answers"
    assert caught.value.message == f"its hook graftkit_run_started: {said}"
    assert caught.value.hint == "Start it." and "Unreachable" in caught.value.where


def test_a_hook_that_nobody_implements_is_no_error() -> None:
    PluginHost(autoload=False).broadcast("graftkit_step_finished", run=RUN, step=None)


def test_folders_are_absolute_for_who_keeps_them_elsewhere() -> None:
    told = (RUN, CheckpointInfo(1, Path("c")), ExportInfo("merged", "merged", Path("e")))
    assert [found.folder for found in told] == [Path.cwd() / name for name in ("runs/x", "c", "e")]
