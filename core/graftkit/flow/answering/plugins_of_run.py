"""The plugins that a run is looked at with, or an export in it."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from graftkit.host.host import PluginHost
from graftkit.report.run_manifest import run_of

__all__ = ["plugins_of_run"]


def plugins_of_run(folder: str | os.PathLike[str], disable: Iterable[str] = ()) -> PluginHost:
    """Makes the plugins that are installed, without those that a run's recipe leaves out.

    Args:
        folder: The run's folder, or an export's in it; anything else leaves nothing out.
        disable: Others to leave out.
    """
    run = run_of(Path(folder))
    return PluginHost(disable=disable, disable_of_run=run.left_out if run else ())
