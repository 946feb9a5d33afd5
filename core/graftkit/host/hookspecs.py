"""What a plugin may implement: a hook for each kind of provider, one for commands, four for a run's life.

Registration hooks take no arguments and return a list. Lifecycle hooks are broadcast to every plugin and are each
given one object per subject, so that new data never changes a signature.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    import click

    from graftkit.host.lifecycle import RunInfo, StageInfo, StepInfo
    from graftkit.interfaces.provider import Provider

__all__ = ["PROJECT", "HookSpecs", "hookimpl"]

PROJECT = "graftkit"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook of that name."""


class HookSpecs:
    """Every hook there is."""

    @hookspec
    def graftkit_tokenizers(self) -> list[Provider]:  # type: ignore[empty-body]
        """Offer tokenizer backends."""

    @hookspec
    def graftkit_initializers(self) -> list[Provider]:  # type: ignore[empty-body]
        """Offer initializers: what a new token's embedding starts as."""

    @hookspec
    def graftkit_quantizers(self) -> list[Provider]:  # type: ignore[empty-body]
        """Offer quantizers."""

    @hookspec
    def graftkit_adapters(self) -> list[Provider]:  # type: ignore[empty-body]
        """Offer adapters."""

    @hookspec
    def graftkit_model_sources(self) -> list[Provider]:  # type: ignore[empty-body]
        """Offer model sources."""

    @hookspec
    def graftkit_exporters(self) -> list[Provider]:  # type: ignore[empty-body]
        """Offer exporters."""

    @hookspec
    def graftkit_commands(self) -> list[click.Command]:  # type: ignore[empty-body]
        """Offer commands for `toolkit`; import what they need inside them."""

    @hookspec
    def graftkit_run_started(self, run: RunInfo) -> None:
        """A run's folder exists and its request has been judged; nothing is loaded yet."""

    @hookspec
    def graftkit_stage_finished(self, run: RunInfo, stage: StageInfo) -> None:
        """A stage is over and what it leaves is on the disk."""

    @hookspec
    def graftkit_step_finished(self, run: RunInfo, step: StepInfo) -> None:
        """The optimizer has taken a step."""

    @hookspec
    def graftkit_run_finished(self, run: RunInfo) -> None:
        """The run is over, its status in `run.status`: finished, failed or interrupted."""
