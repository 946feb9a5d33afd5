"""Opens files of records as a run with the built-in plugins alone does."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from graftkit.corpus.dataset import Dataset
from graftkit.flow.records.datasets import open_dataset
from graftkit.host.host import PluginHost
from graftkit.interfaces.samples import Sample
from graftkit.testing.hosts import isolated_host

__all__ = ["open_files", "read_samples"]


@cache
def _host() -> PluginHost:
    return isolated_host()


def open_files(paths: Iterable[Path]) -> list[Dataset]:
    """Returns the files, each with the reader and the format that fit it.

    Raises:
        DataError: A file can't be read, or is none of records.
    """
    return [open_dataset(_host(), path) for path in paths]


def read_samples(path: Path) -> list[Sample]:
    """Returns the samples of a file.

    Raises:
        DataError: A record is malformed, too.
    """
    return [sample for dataset in open_files([path]) for sample in dataset]
