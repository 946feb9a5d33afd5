"""What follows runs: an object of its own for each."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["Callback"]


@runtime_checkable
class Callback(Protocol):
    """Follows one run. Built from its own config model for each run anew: `Class(config)`, or `Class()`.

    What it keeps in its attributes belongs to that run alone, so that runs that go on side by side in a process share
    nothing. Its methods that are marked with `@graftkit.hookimpl` are called as the lifecycle hooks of those names
    (`graftkit_run_started`, `graftkit_step_finished` and so on, see `graftkit.host.hookspecs`), under the same guard.

    It takes part in every run if each of its fields has a default, and else in those whose recipes give it settings:
    `plugins: {NAME: {field: value}}`.

    Example:
        >>> class Losses:
        ...     def __init__(self):
        ...         self.losses = []
        ...
        ...     @hookimpl
        ...     def graftkit_step_finished(self, step):
        ...         self.losses.append(step.loss)
    """
