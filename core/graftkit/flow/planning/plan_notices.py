"""Tells what the user should know of a recipe's records and of its vocabulary before a run."""

from __future__ import annotations

import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from graftkit.articles import counted
from graftkit.corpus.dataset import Dataset
from graftkit.corpus.file_search import own_folders
from graftkit.corpus.split import Split
from graftkit.corpus.text_paths import unread_files
from graftkit.errors import RecipeError
from graftkit.flow.planning.read_records import ReadRecords
from graftkit.flow.planning.vocabulary import VocabularyRequest
from graftkit.flow.records.left_out import unread_columns
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.recipe.paths import is_hub_dataset
from graftkit.training.order import DatasetShare
from graftkit.visible import first_of, one_line
from graftkit.vocabulary.losses import describe_losses, lost_characters

__all__ = ["told_of_files", "told_of_losses", "told_of_own_code", "told_of_records", "told_of_words"]


def told_of_records(
    bound: BoundRecipe, records: ReadRecords, labels: Sequence[str], differences: Sequence[str]
) -> list[str]:
    """Returns notices of the records.

    Args:
        bound: The recipe.
        records: What was read.
        labels: The labels of texts in their order.
        differences: What `check_template` told.

    Raises:
        RecipeError: Training sees no record at all.
    """
    learns_from = bound.objective_config.learns_from
    return [
        *differences,
        *told_of_files(bound, records.datasets),
        *records.kinds.told_of_pairs(),
        *_holdout(bound, records.samples),
        *(
            records.kinds.told_of_scores()
            if learns_from == "scores"
            else records.kinds.told(records.samples.train, labels)
        ),
        *(records.kinds.told_of_other_labels(records.samples.train) if bound.objective_config.names_labels else ()),
        *(
            records.kinds.told_of_lone_texts()
            if bound.objective_config.judges_texts
            else records.kinds.told_of_texts(learns_from, bound.objective.use)
        ),
        *(_odd_prefixes(labels) if learns_from == "tags" else ()),
        *_unseen(bound, records.shares),
    ]


def _odd_prefixes(tags: Sequence[str]) -> list[str]:
    """Tells of prefixes of tags that whoever loads an export may not know."""
    found = sorted({tag[:2] for tag in tags if tag[1:2] == "-"})
    if not {"B-", "I-"} & {*found} or not {*found} <= {"B-", "I-", "E-", "S-", "L-", "U-"} or {*found} <= {"B-", "I-"}:
        return []
    others = " and ".join(prefix for prefix in found if prefix not in ("B-", "I-"))
    return [
        f"tags begin with {others}, which `toolkit generate` reads as parts of entities; transformers' pipeline, which "
        "loads merged exports, knows B- and I- alone"
    ]


def told_of_files(bound: BoundRecipe, datasets: Sequence[Dataset]) -> list[str]:
    """Returns notices of the files that records are in: where they come from, and what of them is not read.

    Args:
        bound: The recipe that names them.
        datasets: The files, once they were read.
    """
    return [
        *dict.fromkeys(dataset.origin.describe() for dataset in datasets if dataset.origin),
        *_unread(bound, datasets),
        *_written_by_runs(bound),
        *_read_into(datasets),
        *_left_columns(datasets),
        *_skipped(datasets),
        *_fewer(datasets),
    ]


def told_of_absent(bound: BoundRecipe) -> list[str]:
    """Returns a notice for each callback of the recipe that is not there, where it need not be.

    Args:
        bound: The recipe.
    """
    return [
        f"the callback {name}, which followed the run, is told nothing of this: {error.message}"
        for name, error in bound.absent_callbacks.items()
    ]


def told_of_own_code(config: Mapping[str, Any]) -> list[str]:
    """Returns a notice where a base model's authors compute it by code of their own, which is not run.

    Args:
        config: Its config.json.
    """
    named = config.get("auto_map")
    listed = named.items() if isinstance(named, Mapping) else ()
    own = next((code for name, code in listed if name.startswith("AutoModel") and isinstance(code, str)), None)
    if own is None:
        return []
    kind = one_line(str(config.get("model_type")), 40)
    return [
        f"the base model brings code of its own ({one_line(own, 80)}), which is never run: transformers' own for "
        f"{kind} computes it, in training and in exports, and may not do the same"
    ]


def told_of_words(bound: BoundRecipe, tokenizer: Tokenizer) -> list[str]:
    """Returns a notice where transformers' pipeline takes other words for the tagged ones.

    It knows where words begin by a mark of the tokens within them, such as WordPiece's `##`, and else by spaces.

    Args:
        bound: The recipe.
        tokenizer: The tokenizer.
    """
    if bound.objective_config.learns_from != "tags" or not bound.exports:
        return []
    ids = tokenizer.encode(_LETTERS)
    if not ids or tokenizer.decode(ids[-1:]).strip() not in _LETTERS:
        return []
    return [
        "transformers' pipeline, which loads merged exports, takes all between two spaces for a word with this "
        "tokenizer, punctuation included; `toolkit generate` goes by words"
    ]


_LETTERS = "qzxvkjqwzx"
"""What is no word, and ends with a token within it."""


def told_of_losses(tokenizer: Tokenizer, vocabulary: VocabularyRequest | None, *, extends: bool) -> list[str]:
    """Returns a notice of what a tokenizer can't encode, unless the recipe mends it.

    Args:
        tokenizer: The tokenizer.
        vocabulary: What the recipe asks for in its place, if anything.
        extends: Whether a recipe with this objective may extend it.
    """
    section = vocabulary.section if vocabulary else None
    lost = [] if section and section.extend and section.extend.missing_bytes else lost_characters(tokenizer)
    if not lost or (section and section.train):
        return []
    rare = all(unicodedata.category(character) in ("Cc", "Cn") for character in lost)
    only = "; all are control characters or unassigned, so ordinary texts lose nothing" if rare else ""
    adds = "; tokenizer.extend.missing_bytes adds what a base lacks" if extends else ""
    return [f"the tokenizer loses {describe_losses(lost)}{only}{adds}"]


def _fewer(datasets: Sequence[Dataset]) -> list[str]:
    """Tells where a recipe asks for more first records than there are."""
    found = []
    for dataset in datasets:
        count = dataset.count() if dataset.first is not None and not dataset.later else 0
        if dataset.first is not None and 0 < count < dataset.first:
            asked = f"'first' asks for {dataset.first:,} records of it"
            found.append(f"{dataset.source}: {asked}, and it has {count:,}: all are read")
    return found


_FILES_SHOWN = 5


def _unread(bound: BoundRecipe, datasets: Sequence[Dataset]) -> list[str]:
    """Returns a notice for each folder of files of which no reader knows some."""
    read = {path for dataset in datasets for path in (dataset.source.path, *dataset.later)}
    notices = []
    for folder in map(Path, _named(bound)):
        left = unread_files(folder, read) if folder.is_dir() else []
        if left:
            notices.append(f"{folder}: {_some(left)}: not read, no reader knows such files")
    return notices


def _named(bound: BoundRecipe) -> list[str]:
    """Returns the files, folders and patterns on this machine that records are read from, each once."""
    held = bound.recipe.data.holdout
    entries = [*bound.recipe.data.train, *(held if isinstance(held, list) else ())]
    return list(dict.fromkeys(entry.path for entry in entries if not is_hub_dataset(entry.path)))


def _written_by_runs(bound: BoundRecipe) -> list[str]:
    """Returns a notice for each folder or pattern, of records or of a tokenizer's texts, that leads to runs."""
    section = bound.recipe.tokenizer
    learns = (section.extend, section.train) if section else ()
    corpora = [os.path.expanduser(pattern) for each in learns if each for pattern in each.corpus]  # noqa: PTH111
    notices = []
    for place in dict.fromkeys([*_named(bound), *corpora]):
        own = [] if os.path.isfile(place) else own_folders(place)  # noqa: PTH113 (a pattern may be no path at all)
        if own:
            notices.append(f"{place}: {_some(own)}: not read, since runs or exports wrote them")
    return notices


def _some(names: Sequence[str], most: int = _FILES_SHOWN) -> str:
    """Returns the first names of many."""
    return first_of(map(one_line, names), most)


def _read_into(datasets: Sequence[Dataset]) -> list[str]:
    """Tells what is read into records that they don't say themselves, once for all files of which it is the same."""
    found: dict[tuple[str, str], list[str]] = {}
    for dataset in datasets:
        if dataset.reading:
            found.setdefault((dataset.format_name, dataset.reading), []).append(str(dataset.source))
    return [f"{_some(where, 1)}: read as {name}: {one_line(reading)}" for (name, reading), where in found.items()]


def _left_columns(datasets: Sequence[Dataset]) -> list[str]:
    """Tells of columns that are not read, once for all files that have the same ones."""
    found: dict[tuple[str, str], list[str]] = {}
    for dataset in datasets:
        if dataset.left:
            left = unread_columns(dataset.left, dataset.known)
            found.setdefault((dataset.format_name, left), []).append(str(dataset.source))
    return [f"{_some(where, 1)}: read as {name}; not read: {left}" for (name, left), where in found.items()]


def _skipped(datasets: Sequence[Dataset]) -> list[str]:
    """Tells how many records of each file are left out."""
    return [
        f"{one_line(str(dataset.source))}: {len(dataset.skipped):,} records have nothing to learn and are left out, "
        f"the first of them is record {dataset.skipped[0] + 1:,}"
        for dataset in datasets
        if dataset.skipped
    ]


def _holdout(bound: BoundRecipe, samples: Split) -> list[str]:
    """Tells of holdout records that there are too few of, or that training would see."""
    notices = []
    if samples.repeated:
        notices.append(f"{samples.repeated} records are also held out; training does not see them")
    grouped, share = samples.grouped, bound.recipe.data.holdout
    by = one_line(bound.recipe.data.holdout_by or "")
    if grouped and grouped.left:
        notices.append(f"{grouped.left:,} records share their '{by}' with holdout records; training does not see them")
    if grouped and isinstance(share, float):
        held, every = len(samples.holdout), len(samples.holdout) + len(samples.train) + samples.repeated
        if not 0.5 <= held / (share * every) <= 2:
            notices.append(
                f"of {every:,} records {held:,} are held out, and not a share of {share:g}: those with the same '{by}' "
                "stay together"
            )
    if not samples.holdout:
        notices.append("no record is held out: nothing will say whether the model got better")
    wanted = bound.recipe.evaluation.answers
    answers = sum(count for shape, count in samples.holdout.counts().items() if shape != "text")
    if wanted > answers:
        notices.append(
            f"evaluation.answers asks for {counted(wanted, 'answer')}; {answers} holdout records can be answered"
        )
    return notices


def _unseen(bound: BoundRecipe, shares: Sequence[DatasetShare]) -> list[str]:
    """Tells of data sets of which training sees no record.

    Raises:
        RecipeError: It sees no record at all.
    """
    recipe = bound.recipe
    if recipe.training.steps is not None:  # as many epochs as they take
        return []
    epochs = math.ceil(recipe.training.epochs or 1)  # of a part of an epoch it is the order's doing which ones
    if not any(share.seen(epochs) for share in shares):
        raise RecipeError(
            f"data.train: with these weights no record is seen in {counted(epochs, 'epoch')}",
            where=bound.document.where(("data", "train")),
            hint="Raise a weight, or training.epochs.",
        )
    return [
        f"{entry.path}: none of its {counted(share.records, 'record')} is seen in training"
        for entry, share in zip(recipe.data.train, shares, strict=True)
        if not share.seen(epochs)
    ]
