"""Reads every record of a recipe once: what training sees, what is held out, and what says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from graftkit.corpus.dataset import Dataset
from graftkit.corpus.record_shapes import check_learns_from
from graftkit.corpus.sample_files import scan_samples
from graftkit.corpus.split import Split, exclude, split
from graftkit.corpus.text_targets import is_pair, labels_in
from graftkit.errors import DataError
from graftkit.flow.records.datasets import open_datasets, read_for
from graftkit.flow.records.seen_kinds import SeenKinds
from graftkit.host.host import PluginHost
from graftkit.interfaces.samples import Sample, Unanswered
from graftkit.recipe.bind import BoundRecipe
from graftkit.training.order import DatasetShare

__all__ = ["ReadRecords", "as_learnt", "read_records"]


@dataclass(frozen=True, slots=True)
class ReadRecords:
    """The records of a recipe.

    Attributes:
        samples: The records to learn from and the holdout ones.
        datasets: The files that they are in.
        shares: How often those of each entry of `data.train` are seen.
        labels: The labels that texts have.
        kinds: What kinds of records training sees.
        pairs: Whether a record has two texts.
        unanswered: Where the first record stands that has no expected answer; "" where all have one.
    """

    samples: Split
    datasets: Sequence[Dataset]
    shares: Sequence[DatasetShare]
    labels: Collection[str]
    kinds: SeenKinds
    pairs: bool
    unanswered: str = ""

    def label_counts(self) -> tuple[dict[str, float], float]:
        """Returns how many training records have each label, and how many there are, as often as an epoch sees them."""
        train = self.samples.train
        by_file = [self.shares[file.entry].weight for file in self.datasets[: len(train.sizes)]]
        return self.kinds.counts(train, by_file)


def read_records(
    bound: BoundRecipe,
    host: PluginHost,
    pinned: Mapping[str, str] | None,
    opened: Sequence[Dataset] | None = None,
) -> ReadRecords:
    """Reads every record once.

    Args:
        bound: The recipe.
        host: The plugins.
        pinned: The commits of the hub's data sets that the run which goes on took; None where none does.
        opened: The files of `data.train`, where they are open already.

    Raises:
        DataError: A record is of a kind that the objective does not learn from, holdout records have a label of their
            own, or nothing is left to learn from.
    """
    data, seed = bound.recipe.data, bound.recipe.training.seed
    kinds = SeenKinds()
    held_labels: dict[str, str] = {}
    pairs, unanswered = False, ""

    def taken(sample: Sample) -> None:
        nonlocal pairs, unanswered
        pairs = pairs or is_pair(sample)
        unanswered = unanswered or (sample.where if isinstance(sample, Unanswered) else "")
        check_learns_from(sample, bound.objective_config.learns_from, bound.objective.use)

    def learnt(sample: Sample) -> None:
        taken(sample)
        kinds.note(sample)

    def held_out(sample: Sample) -> None:
        taken(sample)
        for label in labels_in(sample) if bound.objective_config.judges_texts else ():
            held_labels.setdefault(label, sample.where)

    files = as_learnt(bound, open_datasets(bound, host, "train", pinned) if opened is None else opened)
    held = []
    if isinstance(data.holdout, list):
        held = as_learnt(bound, open_datasets(bound, host, "holdout", pinned))
        found = exclude(scan_samples(files, fits=learnt), scan_samples(held, fits=held_out))
        _refuse_unlearnt(bound, kinds.labels, held_labels)
    else:
        found = split(scan_samples(files, seed, learnt), data.holdout)
        if found.grouped and not found.holdout:
            raise DataError(
                f"every record has the same '{data.holdout_by}': none of them can be held out",
                where=bound.document.where(("data", "holdout_by")),
                hint="Say another column, or leave data.holdout_by out.",
            )
    if not found.train:
        told = "every record is held out" if found.holdout else "all records are left out (empty: skip)"
        raise DataError(f"{told}: there is nothing to learn from", where=str(files[0].source))
    one_score = kinds.told_of_one_score() if bound.objective_config.learns_from in ("scores", "scored_pairs") else ""
    if one_score:
        raise DataError(f"{one_score}: there is nothing to tell apart", where=str(files[0].source))
    records: Counter[int] = Counter()
    for file, count in zip(files, found.train.counts_by_file(), strict=True):
        records[file.entry] += count
    shares = [DatasetShare(records[number], Fraction(str(entry.weight))) for number, entry in enumerate(data.train)]
    return ReadRecords(found, [*files, *held], shares, {*kinds.labels, *held_labels}, kinds, pairs, unanswered)


def as_learnt(bound: BoundRecipe, files: Sequence[Dataset]) -> list[Dataset]:
    """Returns files as a recipe's objective learns from them, and its split reads them.

    Where it learns labelled answers, a pair is two; where the model answers prompts itself, records need no answer. A
    column by which records are held out together is read, whatever their format is.

    Args:
        bound: The recipe.
        files: The files.
    """
    by, learns_from = bound.recipe.data.holdout_by, bound.objective_config.learns_from
    found = read_for(learns_from, files)
    return [replace(file, by=by, known=file.known | {by}) if by is not None else file for file in found]


def _refuse_unlearnt(bound: BoundRecipe, labels: Collection[str], held: Mapping[str, str]) -> None:
    """Refuses a label of holdout records that no training record has, unless the recipe lists it.

    Args:
        bound: The recipe.
        labels: The labels of the training records.
        held: Those of the holdout records -> where the first of each stands.

    Raises:
        DataError: There is one.
    """
    listed = getattr(bound.objective_config, "labels", ())
    for label, where in held.items():
        if label not in labels and label not in listed:
            raise DataError(
                f"the label {label[:60]!r} stands in holdout records alone: nothing is learnt of it",
                where=where,
                hint="Mend it there, add records of it to data.train, or list it in objective.labels.",
            )
