"""What the model says of the records as training starts, for objectives that compare with it.

It is computed once, before the first step, and kept beside the tokens: the adapter need not be switched off
in each step, and an adapter that training goes on with is compared with what it was.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from graftkit.errors import StorageError, TrainingError
from graftkit.flow.base_model import LoadedModel
from graftkit.flow.context import RunContext
from graftkit.flow.corpus import Corpus
from graftkit.interfaces.objective import ObjectiveConfig
from graftkit.store.array_file import map_arrays, read_metadata, write_arrays
from graftkit.store.fingerprint import fingerprint
from graftkit.store.token_store import TokenStore
from graftkit.training.loss import TokenLoss
from graftkit.training.step_loss import REFERENCE, Passes

__all__ = ["REFERENCE_FILE", "reference_beside", "with_reference"]

REFERENCE_FILE = "reference.safetensors"

_SIDES = ("train", "holdout")
_TYPE = np.dtype("<f4")


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
        key = _key(run)
        found = _read(run, key, stores) if run.resumed else None
        if found is None:
            total = sum(map(len, stores.values()))
            report, done, found = stage.progress("records"), 0, {}

            def tell(before: int, number: int) -> None:
                report(before + number, total)

            for name, store in stores.items():
                found[name] = _scored(run, loaded, store, partial(tell, done))
                done += len(store)
            _write(run, key, found)
        stage.facts["tokens"] = sum(int(store.loss_tokens.sum()) for store in stores.values())
    columns = {name: {**store.by_token, REFERENCE: found[name]} for name, store in stores.items()}
    return replace(
        corpus,
        train=replace(corpus.train, by_token=columns["train"]),
        holdout=replace(corpus.holdout, by_token=columns["holdout"]),
    )


def reference_beside(store: TokenStore, folder: Path, objective: ObjectiveConfig) -> TokenStore:
    """Returns a run's examples to train on with the column that lies beside them, where its objective asks for it.

    Args:
        store: The examples.
        folder: The run's folder.
        objective: The objective's fields.

    Raises:
        StorageError: The file can't be read.
    """
    if not objective.uses_reference:
        return store
    found = np.array(map_arrays(folder / REFERENCE_FILE, dict.fromkeys(_SIDES, _TYPE))["train"])
    return replace(store, by_token={**store.by_token, REFERENCE: found})


def _scored(
    run: RunContext, loaded: LoadedModel, store: TokenStore, report: Callable[[int], None]
) -> NDArray[np.float32]:
    """Returns the log-probability of each token in the loss, `[tokens]`; 0 for the others."""
    found = np.zeros(len(store.ids), np.float32)
    passes = Passes(run.plan.bound.recipe.training.pass_tokens, loaded.packing.packed, loaded.device)
    loss = TokenLoss(loaded.model.network, packed=passes.packed)
    for group in passes.all_groups(store):
        report(group[0])
        at = int(store.offsets[group[0]])
        for batch in passes.batches([store[number] for number in group]):
            logps = loss.score(batch, learn=False).logps.cpu().numpy()
            found[at + batch.logit_positions.cpu().numpy() + 1] = logps
            at += batch.tokens
    if not np.isfinite(found).all():
        raise TrainingError(
            "the model gives a token in the loss no finite log-probability before training",
            hint="The base model's weights or config.json are damaged.",
        )
    return found


def _key(run: RunContext) -> str:
    """Returns what the numbers depend on: the tokens, the model, and what was put on it."""
    data, recipe = run.manifest.data, run.plan.bound.resolved()
    parts = {name: recipe[name] for name in ("model", "tokenizer", "quantizer", "adapter", "training")}
    parts["training"] = {name: recipe["training"][name] for name in ("seed", "dtype", "microbatch_tokens")}
    return fingerprint([data.fingerprint if data else None, parts])


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
