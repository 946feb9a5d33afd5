"""What a teacher says of the records, for objectives that compare the model with it.

It is loaded, scored and freed before the base model is loaded, so that the two are never held together. What it says
is kept in the run's folder, the examples beside it: a run that was stopped goes on where the teacher
stood, and one that goes on training does not load it any more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftkit.errors import Cancelled, ModelError
from graftkit.flow.base_files.base_facts import hashed_as_read
from graftkit.flow.planning.plan_teacher import Teacher
from graftkit.flow.preparation.check_model import PlannedBase
from graftkit.flow.preparation.corpus import Corpus
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.interfaces.quantizer import Quantizer
from graftkit.model.load import load_base_model
from graftkit.model.memory_back import give_memory_back
from graftkit.model.packing import use_packing
from graftkit.report.run_manifest import BaseFacts, required
from graftkit.store.fingerprint import fingerprint
from graftkit.store.folders import atomic_folder
from graftkit.store.system import remove_tree
from graftkit.store.token_store import Example, TokenStore
from graftkit.store.token_writer import TokenWriter, find_store
from graftkit.training.loss import TokenLoss
from graftkit.training.step_loss import TEACHER_IDS, TEACHER_LOGPS, Passes
from graftkit.training.teacher_scores import TeacherScores, teacher_scores

__all__ = ["TEACHER", "with_teacher"]

TEACHER = "teacher"
"""Where the examples lie with what the teacher says of them, in the form of `tokens/`."""

_PARTIAL = ".teacher.partial"
_FORMAT = 1
"""The form of what is kept: that of another one is made again."""

_CHECKPOINT = 1 << 26
"""Bytes after which what the teacher has said is made sure of."""


def with_teacher(run: RunContext, planned: PlannedBase, corpus: Corpus) -> Corpus:
    """Gives the examples what the teacher says of them, where the run's objective has one.

    Raises:
        ModelError: The teacher's files have changed, or it gives a token no finite log-probability.
    """
    teacher = run.plan.teacher
    if teacher is None:
        return corpus
    with run.stage("teacher") as stage:
        stores = {"train": corpus.train, "holdout": corpus.holdout}
        notes = _sealed(run, teacher, stores)
        if not notes:
            notes = _scored(run, stage, teacher, planned, stores)
        if (run.folder / _PARTIAL).exists():
            remove_tree(run.folder / _PARTIAL)
        stage.facts |= {"tokens": int(corpus.train.loss_tokens.sum() + corpus.holdout.loss_tokens.sum()), **notes}
        stage.notice(_described(teacher, notes))
        found = {
            name: TokenStore.load(run.files.watch(run.folder / TEACHER / f"{name}.safetensors")) for name in stores
        }
        return replace(corpus, train=found["train"], holdout=found["holdout"])


def _key(run: RunContext, teacher: Teacher, facts: BaseFacts, side: str) -> str:
    """Returns what the numbers depend on: the tokens, the teacher, and how it is computed."""
    data, training = run.manifest.data, run.plan.bound.recipe.training
    of = [teacher.quantizer.qualified_name, teacher.vocabulary, teacher.top_k, teacher.temperature]
    how = [training.dtype, training.pass_tokens]
    return fingerprint([_FORMAT, side, data.fingerprint if data else None, dict(facts.files), of, how])


def _sealed(run: RunContext, teacher: Teacher, stores: Mapping[str, TokenStore]) -> dict[str, Any]:
    """Returns what was found of the examples where an earlier attempt has finished with them; else nothing."""
    facts = run.manifest.teacher
    if facts is None:
        return {}
    found = {
        name: find_store(run.folder / TEACHER / f"{name}.safetensors", _key(run, teacher, facts, name))
        for name in stores
    }
    return found if all(found.values()) else {}


def _scored(
    run: RunContext, stage: StageScope, teacher: Teacher, planned: PlannedBase, stores: Mapping[str, TokenStore]
) -> dict[str, Any]:
    """Loads the teacher, and writes what it says of the examples that it has not been asked yet."""
    network = _load(run, stage, teacher, planned)
    facts = required(run.manifest.teacher, "teacher")
    passes = Passes(run.plan.bound.recipe.training.pass_tokens, planned.teacher_packing.packed, planned.device)
    report, total, done = stage.progress("records"), sum(map(len, stores.values())), 0
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(
                closing(TokenWriter(run.folder / _PARTIAL / name, _key(run, teacher, facts, name)))
            )
            for name in stores
        }
        before = sum(writer.note["examples"] for writer in writers.values() if writer.note)
        if before:
            stage.notice(f"the teacher goes on after record {before:,}")
        for name, store in stores.items():
            scoring = _Scoring(teacher, TokenLoss(network, packed=passes.packed), passes, store, writers[name])
            scoring.run(partial(_report, report, done, total))
            done += len(store)
        del network, scoring
        give_memory_back()
        with atomic_folder(run.folder / TEACHER, keep=run.files.theirs(TEACHER)) as folder:
            for name, writer in writers.items():
                writer.seal(folder / f"{name}.safetensors", {"format": "graftkit"})
        return {name: writer.note for name, writer in writers.items()}


def _load(run: RunContext, stage: StageScope, teacher: Teacher, planned: PlannedBase) -> Any:
    quantizer: Quantizer = run.host.registry.create(teacher.quantizer, teacher.quantizer_config)
    dtype, on_tensor = getattr(torch, run.plan.bound.recipe.training.dtype), stage.progress("tensors")
    with hashed_as_read(teacher.files, run.manifest.teacher, "the run's teacher was") as facts:
        run.record(teacher=facts)
        run.save()
        network: Any = load_base_model(
            teacher.files, quantizer, device=planned.device, dtype=dtype, on_tensor=on_tensor
        )
    use_packing(network, planned.teacher_packing)
    return network


class _Scoring:
    """Scores the examples of a store and appends them to a writer, as many of them as it lacks.

    Args:
        teacher: What is kept.
        loss: Makes the teacher's logits.
        passes: How examples are cut into passes.
        store: The examples.
        writer: Where they go.
    """

    def __init__(
        self, teacher: Teacher, loss: TokenLoss, passes: Passes, store: TokenStore, writer: TokenWriter
    ) -> None:
        self._teacher, self._loss, self._passes, self._store, self._writer = teacher, loss, passes, store, writer
        self._note = dict(writer.note or {"examples": 0, "nll": 0.0, "kept": 0.0, "weight": 0.0})

    def run(self, report: Callable[[int], None]) -> None:
        """Scores the examples.

        Args:
            report: Called before each pass with how many are done; may raise to stop, which loses none of these.

        Raises:
            ModelError: The teacher gives a token no finite log-probability.
        """
        saved, every = self._writer.tokens, max(1, _CHECKPOINT // (8 * self._teacher.top_k))
        for group in self._passes.all_groups(self._store):
            if group[0] < self._note["examples"]:
                continue
            if self._writer.tokens - saved >= every:
                self._checkpoint()
                saved = self._writer.tokens
            try:
                report(group[0])
            except Cancelled:
                self._checkpoint()
                raise
            self._append(group)
        self._checkpoint()

    def _checkpoint(self) -> None:
        self._writer.checkpoint(dict(self._note))

    def _append(self, group: Sequence[int]) -> None:
        examples = [self._store[number] for number in group]
        tokens = sum(len(example.ids) for example in examples)
        ids = np.zeros((tokens, self._teacher.top_k), np.int32)
        logps = np.zeros((tokens, self._teacher.top_k), np.float32)
        at = 0
        for batch in self._passes.batches(examples):
            said = teacher_scores(
                self._loss, batch, self._teacher.top_k, self._teacher.vocabulary, self._teacher.temperature
            )
            places = at + batch.logit_positions.cpu().numpy() + 1
            ids[places], logps[places] = said.ids.numpy(), said.logps.numpy()
            at += batch.tokens
            self._count(said, batch.token_weights.cpu())
        starts = np.cumsum([0, *(len(example.ids) for example in examples)])
        self._writer.append(
            TokenStore.of(
                _with_columns(example, {TEACHER_IDS: ids[start:end], TEACHER_LOGPS: logps[start:end]})
                for example, start, end in zip(examples, starts, starts[1:], strict=False)
            )
        )
        self._note["examples"] = group[-1] + 1

    def _count(self, said: TeacherScores, weights: torch.Tensor) -> None:
        """Adds up what the teacher's loss and the share of its probability that is kept are made of."""
        if not (said.logps.isfinite().all() and said.nll.isfinite().all()):
            raise ModelError(
                "the teacher gives a token in the loss no finite log-probability",
                where=self._teacher.files.reference,
                hint="Its weights or config.json are damaged.",
            )
        self._note["nll"] += float((said.nll * weights).double().sum())
        self._note["kept"] += float((said.logps.double().exp().sum(1) * weights).sum())
        self._note["weight"] += float(weights.double().sum())


def _report(report: Callable[[int, int], None], before: int, total: int, number: int) -> None:
    report(before + number, total)


def _with_columns(example: Example, columns: Mapping[str, NDArray[Any]]) -> Example:
    return replace(example, by_token={**example.by_token, **columns})


def _described(teacher: Teacher, notes: Mapping[str, Mapping[str, float]]) -> str:
    """Says how well the teacher knows the records, and how much of what it says is kept."""
    losses = [
        f"{note['nll'] / note['weight']:.4f} on {'the training' if name == 'train' else 'the holdout'} records"
        for name, note in notes.items()
        if note["weight"]
    ]
    kept, weight = (math.fsum(note[key] for note in notes.values()) for key in ("kept", "weight"))
    share = f"its {teacher.top_k:,} likeliest tokens have {kept / weight:.2%} of its probability"
    return f"the teacher's loss is {' and '.join(losses)}; {share}"
