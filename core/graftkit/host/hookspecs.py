"""What a plugin may implement: a hook for each kind of provider, one for commands, eight for a run's life.

The kinds are those of `graftkit.interfaces.kinds.KINDS`. Registration hooks take no arguments and return a list.
Lifecycle hooks are broadcast to every plugin and are each given one object per subject, so that new data never changes
a signature.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pluggy

from graftkit.interfaces.kinds import KINDS, KindSpec

if TYPE_CHECKING:
    import click

    from graftkit.host.lifecycle import CheckpointInfo, EvaluationInfo, ExportInfo, RunInfo, StageInfo, StepInfo
    from graftkit.interfaces.provider import Provider
    from graftkit.interfaces.report_section import ReportSection

__all__ = ["PROJECT", "HookSpecs", "hookimpl", "registration_hooks"]

PROJECT = "graftkit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of that name."""


def registration_hooks() -> type:
    """Returns a class of specifications, as pluggy takes them: a hook for each kind of provider."""
    return type("RegistrationHooks", (), {spec.hook: staticmethod(_registration_hook(spec)) for spec in KINDS.values()})


def _registration_hook(spec: KindSpec) -> Callable[[], list[Provider]]:
    def register() -> list[Provider]:
        raise NotImplementedError  # pluggy calls implementations alone

    register.__name__, register.__doc__ = spec.hook, spec.summary
    return hookspec(register)


class HookSpecs:
    """Every hook but those that register providers, which are `registration_hooks`."""

    @hookspec
    def graftkit_commands(self) -> list[click.Command]:  # type: ignore[empty-body]
        """Offer commands for `toolkit`; import what they need inside them."""

    @hookspec
    def graftkit_run_started(self, run: RunInfo) -> None:
        """A run's folder exists and its request has been checked; nothing is loaded yet."""

    @hookspec
    def graftkit_stage_finished(self, run: RunInfo, stage: StageInfo) -> None:
        """A stage is over and what it leaves is on the disk."""

    @hookspec
    def graftkit_step_finished(self, run: RunInfo, step: StepInfo) -> None:
        """The optimizer has taken a step."""

    @hookspec
    def graftkit_checkpoint_written(self, run: RunInfo, checkpoint: CheckpointInfo) -> None:
        """A checkpoint is on the disk."""

    @hookspec
    def graftkit_evaluation_finished(self, run: RunInfo, evaluation: EvaluationInfo) -> None:
        """The model was measured on holdout records: before training, while it goes on, or after it."""

    @hookspec
    def graftkit_export_finished(self, run: RunInfo, export: ExportInfo) -> None:
        """An export is written and proved, unless the recipe puts that off, and lies where it stays."""

    @hookspec
    def graftkit_report_sections(self, run: RunInfo) -> list[ReportSection]:  # type: ignore[empty-body]
        """Add sections to `report.html`, which is about to be written."""

    @hookspec
    def graftkit_run_finished(self, run: RunInfo) -> None:
        """The run is over, its status in `run.status`: finished, failed or interrupted; `run.error` says why."""
