"""Stops runs after a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit.errors import Cancelled
from graftkit.flow.events import Event, StepFinished

__all__ = ["run_until"]


def run_until(step: int, recipe: Any, out: Path, **options: Any) -> None:
    """Runs a recipe and stops it after a step; it must not come to its end.

    Args:
        step: The step's number.
        recipe: The recipe.
        out: The run's folder.
        options: Of `graftkit.run`.
    """
    cancel = graftkit.CancelToken()

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished) and event.step.step == step:
            cancel.cancel()

    with pytest.raises(Cancelled):
        graftkit.run(recipe, out=out, on_event=on_event, cancel=cancel, **options)
