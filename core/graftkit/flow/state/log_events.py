"""What a run tells, as records of the logger "graftkit": nothing is shown unless the program asks for it.

The logger has no handler and no level of its own. Nothing is of the level WARNING or above, which Python shows of
loggers that nobody has set up.
"""

from __future__ import annotations

import logging

from graftkit.flow.events import Event, Notice, RunFailed, RunFinished, StageFinished, StageStarted

__all__ = ["log"]

_LOGGER = logging.getLogger("graftkit")


def log(event: Event) -> None:
    """Logs an event, which the record has as `event`: stages and notices as INFO, all others as DEBUG."""
    told = isinstance(event, StageStarted | StageFinished | Notice | RunFinished | RunFailed)
    level = logging.INFO if told else logging.DEBUG
    if _LOGGER.isEnabledFor(level):
        _LOGGER.log(level, "%s %s", event.run[:8], _words(event), extra={"event": event})


def _words(event: Event) -> str:
    match event:
        case StageStarted(stage):
            return f"{stage} ..."
        case StageFinished(stage, seconds):
            return f"{stage}: {seconds:.1f} s"
        case Notice(stage, message):
            return f"{stage}: note: {message}"
        case RunFinished(folder):
            return f"finished: {folder}"
        case RunFailed(folder, error):
            return f"failed: {folder}: {error['message']}"
        case _:
            return str(event)
