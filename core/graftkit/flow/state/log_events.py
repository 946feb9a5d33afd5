"""What a run tells, as records of the logger "graftkit": nothing is shown unless the program asks for it.

The logger has no handler and no level of its own. Nothing is of the level WARNING or above, which Python shows of
loggers that nobody has set up. A handler or a filter of the program's that raises ends no run.
"""

from __future__ import annotations

import logging

from graftkit.errors import text_of
from graftkit.flow.events import Event, Notice, RunFailed, RunFinished, StageFinished, StageStarted

__all__ = ["log"]

_LOGGER = logging.getLogger("graftkit")


def log(event: Event) -> str:
    """Logs an event, which the record has as `event`: stages and notices as INFO, all others as DEBUG.

    Returns:
        What a handler raised, or nothing.
    """
    told = isinstance(event, StageStarted | StageFinished | Notice | RunFinished | RunFailed)
    level = logging.INFO if told else logging.DEBUG
    try:
        if _LOGGER.isEnabledFor(level):
            _LOGGER.log(level, "%s %s", event.run[:8], _words(event), extra={"event": event})
    except Exception as error:
        return f"{type(error).__name__}: {text_of(error)}"
    return ""


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
