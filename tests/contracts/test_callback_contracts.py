"""The contract of callbacks finds out who would fail in a run, in another run beside it, or in the report."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, ClassVar

import pytest
from graftkit import PluginHost, Provider, ProviderConfig, RecipePath, ReportSection, ReportText, hookimpl
from graftkit.errors import HookError
from graftkit.testing import CallbackContract
from pluggy import PluginValidationError
from pydantic import Field


class Good:
    def __init__(self) -> None:
        self.losses: list[float] = []

    @hookimpl
    def graftkit_step_finished(self, step: Any) -> None:
        self.losses.append(step.loss)

    @hookimpl
    def graftkit_report_sections(self) -> list[ReportSection]:
        return [ReportSection("losses", [ReportText(str(self.losses))])]


class Misspelt:
    @hookimpl
    def graftkit_step_finnished(self) -> None: ...


class TakesMore:
    @hookimpl
    def graftkit_step_finished(self, step: Any, loss: float) -> None: ...


class Disturbs:
    @hookimpl
    def graftkit_step_finished(self) -> None:
        random.seed(3)


class NeedsSteps(Good):
    @hookimpl
    def graftkit_run_finished(self) -> None:
        self.losses[-1]


class SharesFile:
    open: ClassVar[list[str]] = []

    @hookimpl
    def graftkit_run_started(self, run: Any) -> None:
        assert not self.open, "another run is going on"
        self.open.append(run.id)

    @hookimpl
    def graftkit_run_finished(self) -> None:
        self.open.pop()


class WritesHtml:
    @hookimpl
    def graftkit_report_sections(self) -> Any:
        return ["<b>losses</b>"]


class Plugin:
    config = ""

    @hookimpl
    def graftkit_callbacks(self) -> list[Provider]:
        made = (Good, Misspelt, TakesMore, Disturbs, NeedsSteps, SharesFile, WritesHtml)
        return [Provider(cls.__name__.lower(), f"{__name__}:{cls.__name__}", config=self.config) for cls in made]


def contract_of(cls: type) -> CallbackContract:
    class TestIt(CallbackContract):
        provider = cls.__name__.lower()

        def host(self) -> PluginHost:
            return PluginHost(plugins=[Plugin()], strict=True)

        def make(self) -> Any:
            return cls()

    return TestIt()


class PathConfig(ProviderConfig):
    path: RecipePath = Field(description="where to write")


def test_a_relative_path_is_in_a_folder_that_goes_with_the_test() -> None:
    class TestIt(CallbackContract):
        provider = "good"
        options: ClassVar = {"path": "runs.db"}

        def host(self) -> PluginHost:
            return PluginHost(plugins=[Plugin()], strict=True)

    Plugin.config = f"{__name__}:PathConfig"
    try:
        it = TestIt()
        path = Path(it.choice.config.path)  # type: ignore[attr-defined]
    finally:
        Plugin.config = ""
    assert path.name == "runs.db" and path.parent.is_dir() and path.parent != Path.cwd()
    del it
    assert not path.parent.exists()


def names() -> list[str]:
    return [name for name in vars(CallbackContract) if name.startswith("test_")]


def test_a_good_one_passes() -> None:
    for name in names():
        getattr(contract_of(Good), name)()


@pytest.mark.parametrize(
    ("cls", "test", "said"),
    [
        (Misspelt, "it_implements_hooks_that_there_are", "graftkit_step_finnished"),
        (TakesMore, "it_implements_hooks_that_there_are", "loss"),
        (Disturbs, "it_follows_a_run_to_its_end", "Python's random state"),
        (NeedsSteps, "a_run_that_fails_before_anything_is_loaded_is_one_too", "IndexError"),
        (SharesFile, "runs_side_by_side_share_nothing", "another run is going on"),
        (WritesHtml, "it_follows_a_run_to_its_end", "not a list of ReportSection"),
    ],
)
def test_who_breaks_a_promise_is_told_which(cls: type, test: str, said: str) -> None:
    with pytest.raises((AssertionError, HookError, PluginValidationError), match=said):
        getattr(contract_of(cls), f"test_{test}")()
    SharesFile.open.clear()
