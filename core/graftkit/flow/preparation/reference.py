"""What the model says of the records as training starts, for objectives that compare with it.

It is computed once, before the first step, and kept beside the tokens: the adapter need not be switched off
in each step, and an adapter that training goes on with is compared with what it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from graftkit.errors import StorageError, TrainingError
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.state.context import RunContext
from graftkit.flow.state.start_key import start_key
from graftkit.interfaces.objective_config import AnyObjectiveConfig
from graftkit.store.array_file import map_arrays, read_metadata, write_arrays
from graftkit.store.token_store import TokenStore
from graftkit.training.loss import TokenLoss
from graftkit.training.start_scores import rounding, score_groups
from graftkit.training.step_loss import REFERENCE, OnPass, Passes
from graftkit.training.together import send_parameters

__all__ = ["REFERENCE_FILE", "reference_beside", "score_references", "with_reference"]

REFERENCE_FILE = "reference.safetensors"

_SIDES = ("train", "holdout")
_TYPE = np.dtype("<f4")
_PASSES = 64
"""Passes of each process after which they put their scores together."""


def with_reference(run: RunContext, loaded: LoadedModel, corpus: Corpus) -> Corpus:
    """Adds the model's log-probabilities to the corpus, where the run's objective asks for them.

    Must be called before the first step. A run that goes on reads what it wrote then.

    Raises:
        TrainingError: One of them is no number.
    """
    if not run.plan.bound.objective_config.uses_reference:
        return corpus
    stores = {"train": corpus.train, "holdout": corpus.holdout}
    with run.stage("reference") as stage:
        key = start_key(run)
        found = _read(run, key, stores) if run.resumed else None
        if found is None:
            run.processes.announce({"part": "reference"})
            found = score_references(run, loaded, corpus, stage.progress("records"))
            if not all(np.isfinite(scores).all() for scores in found.values()):
                raise TrainingError(
                    "the model gives a token in the loss no finite log-probability before training",
                    hint="The base model's weights or config.json are damaged.",
                )
            _write(run, key, found)
        stage.facts["tokens"] = sum(int(store.loss_tokens.sum()) for store in stores.values())
    return _with_columns(corpus, found)


def reference_beside(corpus: Corpus, folder: Path, objective: AnyObjectiveConfig) -> Corpus:
    """Returns a run's examples with the column that lies beside them, where its objective asks for it.

    Args:
        corpus: The examples.
        folder: The run's folder.
        objective: The objective's fields.

    Raises:
        StorageError: The file can't be read.
    """
    if not objective.uses_reference:
        return corpus
    found = map_arrays(folder / REFERENCE_FILE, dict.fromkeys(_SIDES, _TYPE))
    return _with_columns(corpus, {name: np.array(found[name]) for name in _SIDES})


def _with_columns(corpus: Corpus, found: Mapping[str, NDArray[np.float32]]) -> Corpus:
    columns = {
        name: {**store.by_token, REFERENCE: found[name]}
        for name, store in (("train", corpus.train), ("holdout", corpus.holdout))
    }
    return replace(
        corpus,
        train=replace(corpus.train, by_token=columns["train"]),
        holdout=replace(corpus.holdout, by_token=columns["holdout"]),
    )


def score_references(
    run: RunContext, loaded: LoadedModel, corpus: Corpus, report: OnPass = lambda done, total: None
) -> dict[str, NDArray[np.float32]]:
    """Returns the log-probability of each token in the loss, `[tokens]`; 0 for the others.

    All processes that train together call it, with the parameters of rank 0, and share the passes.

    Args:
        run: The run.
        loaded: The model.
        corpus: The examples.
        report: Called before each pass with how many examples are done and how many there are; raises to stop.
    """
    send_parameters(run.processes, loaded.model.trainable_parameters().values())
    total, done, found = len(corpus.train) + len(corpus.holdout), 0, {}

    def tell(before: int, number: int) -> None:
        report(before + number, total)

    for name, store in (("train", corpus.train), ("holdout", corpus.holdout)):
        with rounding(loaded.model.network) if name == "train" else nullcontext():
            found[name] = _scored(run, loaded, store, partial(tell, done))
        done += len(store)
    return found


def _scored(
    run: RunContext, loaded: LoadedModel, store: TokenStore, report: Callable[[int], None]
) -> NDArray[np.float32]:
    """Returns those of one side's tokens.

    Processes put together what they have after every so many passes, so that none waits long for another.
    """
    found, processes = np.zeros(len(store.ids), np.float32), run.processes
    passes = Passes(run.plan.bound.recipe.training.pass_tokens, loaded.packing.packed, loaded.device, processes)
    loss = TokenLoss(loaded.model.network, packed=passes.packed)
    groups, many = passes.all_groups(store), _PASSES * processes.count
    for few in (groups[first : first + many] for first in range(0, len(groups), many)):
        score_groups(loss, passes, store, few, found, lambda group: report(group[0]))
        if processes.count > 1:
            start, end = int(store.offsets[few[0][0]]), int(store.offsets[few[-1][-1] + 1])
            processes.sum_(torch.from_numpy(found[start:end]))
    return found


def _write(run: RunContext, key: str, found: Mapping[str, NDArray[np.float32]]) -> None:
    data = {name: values.astype(_TYPE).tobytes() for name, values in found.items()}
    about = {"key": key, **{f"crc32.{name}": str(zlib.crc32(part)) for name, part in data.items()}}
    arrays = [(name, _TYPE, values.shape) for name, values in found.items()]
    write_arrays(run.folder / REFERENCE_FILE, arrays, lambda name, file: file.write(data[name]), about)


def _read(run: RunContext, key: str, stores: Mapping[str, TokenStore]) -> dict[str, NDArray[np.float32]] | None:
    """Returns what the run wrote before it stopped, where it is whole and of these tokens."""
    path = run.folder / REFERENCE_FILE
    try:
        about, arrays = read_metadata(path), map_arrays(path, dict.fromkeys(_SIDES, _TYPE))
    except StorageError:
        return None
    found = {name: np.array(arrays[name]) for name in _SIDES}
    sums = {f"crc32.{name}": str(zlib.crc32(values.tobytes())) for name, values in found.items()}
    fits = all(len(found[name]) == len(store.ids) for name, store in stores.items())
    return found if fits and about == {"key": key, **sums} else None
