"""Which labels training sees, and whether it sees wanted and unwanted answers."""

from __future__ import annotations

import unicodedata
from array import array
from collections.abc import Sequence

import numpy as np

from graftkit.corpus.sample_files import Samples
from graftkit.interfaces.samples import LabelledAnswer, LabelledText, Sample
from graftkit.visible import one_line

__all__ = ["SeenKinds"]

_SHOWN = 5


class SeenKinds:
    """Of each record of the training files, in their order, its label, or whether its answer is wanted."""

    def __init__(self) -> None:
        self._names: dict[str | bool | None, int] = {}
        self._of_record = array("I")

    def note(self, sample: Sample) -> None:
        """Notes a record; every one of the files in turn."""
        kind: str | bool | None = None
        if isinstance(sample, LabelledText):
            kind = sample.label
        elif isinstance(sample, LabelledAnswer):
            kind = sample.wanted
        self._of_record.append(self._names.setdefault(kind, len(self._names)))

    @property
    def labels(self) -> set[str]:
        """The labels of all records that were noted."""
        return {name for name in self._names if isinstance(name, str)}

    def told(self, train: Samples, labels: Sequence[str]) -> list[str]:
        """Tells what nothing is learnt of, and which labels are probably meant to be one.

        Args:
            train: The records that training sees, of all that were noted.
            labels: The labels that a classifier tells apart; none for other objectives.
        """
        present = {*np.unique(np.frombuffer(self._of_record, np.uintc)[train.kept]).tolist()}
        seen = {name for name, number in self._names.items() if number in present}
        alike = _alike(labels)
        missing = [label for label in labels if label not in seen]
        if missing:
            shown = ", ".join(repr(one_line(label, 40)) for label in missing[:_SHOWN])
            more = f" and {len(missing) - _SHOWN:,} more" if len(missing) > _SHOWN else ""
            return [f"no training record has the label {shown}{more}: nothing is learnt of it", *alike]
        if seen in ({True}, {False}):
            kind = "wanted" if True in seen else "unwanted"
            return [f"the answer of every training record is {kind}: there is none of the other kind to learn from"]
        return alike


def _alike(labels: Sequence[str]) -> list[str]:
    """Tells of labels that differ by case, white space or the form of their characters alone."""
    groups: dict[str, list[str]] = {}
    for label in labels:
        groups.setdefault(" ".join(unicodedata.normalize("NFKC", label).casefold().split()), []).append(label)
    found = [group for group in groups.values() if len(group) > 1]
    if not found:
        return []
    shown = "; ".join(", ".join(repr(one_line(label, 40)) for label in group[:_SHOWN]) for group in found[:_SHOWN])
    more = f"; and {len(found) - _SHOWN:,} more" if len(found) > _SHOWN else ""
    return [f"labels that differ by case or white space alone are told apart: {shown}{more}"]
