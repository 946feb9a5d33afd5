"""The plugins that a run is looked at with, or an export in it."""

from __future__ import annotations

import os

from graftkit.host.host import PluginHost
from graftkit.report.run_of_folder import first_run

__all__ = ["plugins_of_run"]


def plugins_of_run(*sources: str | os.PathLike[str]) -> PluginHost:
    """Makes the plugins that are installed, without those that a run's recipe leaves out.

    Args:
        sources: A run's folder, or an export's in it; anything else leaves nothing out. Of several the first counts
            that is of a run.
    """
    run = first_run(sources)
    return PluginHost(disable_of_run=run.left_out if run else ())
