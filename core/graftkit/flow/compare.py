"""Compares runs by what their folders say; nothing is loaded or computed."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from graftkit.arguments import check_path
from graftkit.errors import RequestError
from graftkit.flow.reporting.read_run import read_run
from graftkit.report.comparison import Comparison, compared

__all__ = ["compare"]


def compare(runs: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Puts runs side by side: what differs between their recipes, and what came of it.

    What is unfinished or damaged is told in `Comparison.notices`, and so is what keeps losses from being compared.

    Args:
        runs: Their folders, two or more.

    Raises:
        RequestError: There are fewer than two.
        FolderError: One holds no run, or its manifest is damaged.

    Example:
        >>> found = compare(["runs/rank-8", "runs/rank-16"])  # doctest: +SKIP
        >>> [difference.key for difference in found.differences]  # doctest: +SKIP
        ['adapter.rank', 'adapter.alpha']
    """
    folders = (
        []
        if isinstance(runs, str | os.PathLike) or not isinstance(runs, Iterable)
        else [check_path(run, f"runs[{number}]") for number, run in enumerate(runs)]
    )
    if len(folders) < 2:
        raise RequestError("a comparison takes two runs or more", hint="Name their folders: runs/ONE runs/OTHER.")
    return compared([read_run(Path(folder)) for folder in folders])
