"""Records become tokens on the disk; torch is not loaded yet."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from graftkit.corpus.encode import Encoder
from graftkit.corpus.sample_files import Samples
from graftkit.corpus.tally import Tally
from graftkit.corpus.tokenize import Position, position_units, tokenize
from graftkit.errors import Cancelled, DataError
from graftkit.flow.base_files.generation_settings import stop_tokens
from graftkit.flow.folders.own_files import CHECKPOINTS
from graftkit.flow.planning.vectors import refuse_alike, told_of_holdout
from graftkit.flow.preparation.masking import masking_in
from graftkit.flow.records.chat import chat_facts, chat_options
from graftkit.flow.records.told_of_encoding import told_of_encoding, way_to_fit
from graftkit.flow.state.context import RunContext, StageScope
from graftkit.option_names import option
from graftkit.report.run_manifest import DataFacts
from graftkit.store.fingerprint import fingerprint
from graftkit.store.folders import atomic_folder
from graftkit.store.system import remove_tree
from graftkit.store.token_store import TokenStore
from graftkit.store.token_writer import TokenWriter, find_store
from graftkit.training.masking import MaskedStore

__all__ = ["RECORD", "TOKENS", "Corpus", "build_corpus", "read_corpus"]

TOKENS = "tokens"
PARTIAL = ".tokens.partial"
"""Where tokens are written while records are encoded: a run that was stopped goes on there."""

RECORD = "record"
"""The column of stored tokens with the number of each example's record."""

_FORMAT = 4
"""The form of stored tokens: tokens of another one are encoded again."""

_CHECKPOINT = 1 << 20
"""Tokens after which they are made sure of: a few seconds' work."""


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokens to learn from and tokens to evaluate on.

    Attributes:
        train: The records to learn from.
        holdout: The holdout records.
        answers: The numbers of the holdout records that have a prompt and an answer, as many as are asked for.
        stop: What a generation stops at: special tokens that end a stretch in the loss, and those of the base model.
        answered: The numbers of the holdout records that `answers` are of.
    """

    train: TokenStore
    holdout: TokenStore
    answers: list[int]
    stop: list[int]
    answered: list[int]


@dataclass(frozen=True, slots=True)
class _Side:
    """The records to learn from, or the holdout ones.

    Attributes:
        samples: The records.
        key: What their tokens depend on.
        answers: How many answers are noted at most.
        report: Told how many of them are done.
        room: Told how many are done, and how many bytes their tokens take, whenever those are made sure of.
    """

    samples: Samples
    key: str
    answers: int
    report: Callable[[int], None]
    room: Callable[[int, int], None]


def build_corpus(run: RunContext) -> Corpus:
    """Writes `tokens/` and counts what became of the records; tokens of an earlier attempt that still hold are used.

    Raises:
        DataError: A record can't be laid out, or nothing is left to learn.
    """
    with run.stage("corpus") as stage:
        encoder, samples = run.vocabulary.encoder, run.plan.samples
        fingerprints = {"train": samples.train.fingerprint, "holdout": samples.holdout.fingerprint}
        _check_resumed(run, fingerprints, encoder)
        sides = _sides(run, stage, encoder, fingerprints)
        tallies = _sealed(run, sides) or _written(run, stage, encoder, sides)
        if (run.folder / PARTIAL).exists():
            remove_tree(run.folder / PARTIAL)
        stores = {name: TokenStore.load(run.files.watch(run.folder / TOKENS / f"{name}.safetensors")) for name in sides}
        stage.facts |= _facts(run, stores, tallies) | {"encoder": getattr(encoder.tokenizer, "encoder", None)}
        refuse_alike(run.plan.bound, stores["train"], str(run.plan.datasets[0].source))
        for told in told_of_holdout(run.plan.bound, stores["holdout"]):
            stage.notice(told)
        made_from = {**fingerprints, "layout": encoder.fingerprint}
        run.record(
            data=DataFacts(
                date=run.plan.today.isoformat(),
                revisions=run.plan.revisions(),
                fingerprint=made_from,
                chat=chat_facts(chat_options(run.plan.bound)),
                **stage.facts,
            )
        )
        corpus = _corpus(run, stores, tallies)
        _check_same_stops(run, corpus.stop)
        run.record(stop_tokens=corpus.stop)
        return corpus


def read_corpus(run: RunContext, folder: Path, place: str = TOKENS) -> Corpus:
    """Returns the tokens that another process has written, and nothing of answers.

    Args:
        run: The run as it is in this process.
        folder: The other process's.
        place: Where in that folder they lie.

    Raises:
        StorageError: They can't be read.
    """
    train, holdout = (TokenStore.load(folder / place / f"{name}.safetensors") for name in ("train", "holdout"))
    return Corpus(train, _holdout_of(run, holdout), [], [], [])


def _sides(run: RunContext, stage: StageScope, encoder: Encoder, fingerprints: Mapping[str, str]) -> dict[str, _Side]:
    samples, wanted = run.plan.samples, run.plan.bound.recipe.evaluation.answers
    report, first, total = stage.progress("records"), len(samples.train), len(samples.train) + len(samples.holdout)
    about = [_FORMAT, encoder.fingerprint, wanted, *position_units()]
    key = {name: fingerprint([about, of]) for name, of in fingerprints.items()}
    room = partial(_tell_of_room, run, stage)
    return {
        "train": _Side(samples.train, key["train"], 0, lambda done: report(done, total), partial(room, first)),
        "holdout": _Side(
            samples.holdout,
            key["holdout"],
            wanted,
            lambda done: report(first + done, total),
            partial(room, total - first),
        ),
    }


def _tell_of_room(run: RunContext, stage: StageScope, total: int, done: int, size: int) -> None:
    """Says, once, that the disk may be full before the records are encoded, as far as those that are done tell.

    Args:
        run: The run.
        stage: The stage.
        total: How many records there are.
        done: How many are encoded.
        size: How many bytes their tokens take.
    """
    if not done:  # the first is a long text
        return
    try:
        expected, free = size * total // done, shutil.disk_usage(run.folder).free
    except OSError:  # the folder is gone, which the next write tells
        return
    if 2 * expected - size <= free or any(_ROOM in notice for notice in run.manifest.notices):
        return
    stage.notice(
        f"{_ROOM} {2 * expected / 1e9:,.1f} GB at most, of which half is given back, as {done:,} of {total:,} do; "
        f"{free / 1e9:,.1f} GB are free in {run.folder}"
    )


_ROOM = "the disk may be full before the records are encoded: their tokens take"


def _sealed(run: RunContext, sides: Mapping[str, _Side]) -> dict[str, Tally] | None:
    """Returns what became of the records where an earlier attempt has finished with them."""
    notes = {name: find_store(run.folder / TOKENS / f"{name}.safetensors", side.key) for name, side in sides.items()}
    found = {name: Tally.from_json(note["tally"]) for name, note in notes.items() if note}
    return found if found.keys() == sides.keys() else None


def _written(run: RunContext, stage: StageScope, encoder: Encoder, sides: Mapping[str, _Side]) -> dict[str, Tally]:
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(closing(TokenWriter(run.folder / PARTIAL / name, side.key)))
            for name, side in sides.items()
        }
        _tell_of_earlier(stage, writers)
        tallies = {name: _encode(encoder, side, writers[name]) for name, side in sides.items()}
        _check(run, stage, encoder, tallies)
        about = {"format": "graftkit", "tokenizer": encoder.tokenizer.fingerprint}
        with atomic_folder(run.folder / TOKENS, keep=run.files.theirs(TOKENS)) as folder:
            for name, writer in writers.items():
                writer.seal(folder / f"{name}.safetensors", about)
    return tallies


def _tell_of_earlier(stage: StageScope, writers: Mapping[str, TokenWriter]) -> None:
    done = sum(writer.note["position"]["records"] for writer in writers.values() if writer.note)
    if done:
        stage.notice(f"going on after record {done:,}")


def _encode(encoder: Encoder, side: _Side, writer: TokenWriter) -> Tally:
    """Encodes the records that have not been yet."""
    position = Position.from_json(writer.note["position"]) if writer.note else Position()
    tally = Tally.from_json(writer.note["tally"]) if writer.note else Tally()
    saved = writer.tokens
    side.report(position.records)
    for chunk in tokenize(encoder, side.samples, position):
        writer.append(replace(chunk.tokens, by_example={**chunk.tokens.by_example, RECORD: chunk.records}))
        tally, position = tally.plus(chunk.tally, side.answers), chunk.position
        if writer.tokens - saved >= _CHECKPOINT:
            writer.checkpoint(_note(position, tally))
            saved = writer.tokens
            side.room(position.records, writer.size)
        try:
            side.report(position.records)
        except Cancelled:
            writer.checkpoint(_note(position, tally))
            raise
    writer.checkpoint(_note(position, tally))
    return tally


def _note(position: Position, tally: Tally) -> dict[str, Any]:
    return {"position": position.to_json(), "tally": tally.to_json()}


def _check(run: RunContext, stage: StageScope, encoder: Encoder, tallies: Mapping[str, Tally]) -> None:
    limit, train = encoder.max_length, tallies["train"]
    if not train.examples:
        raise DataError(
            f"not one of {train.records} records has a token to learn within data.max_length ({limit})",
            where=str(run.plan.datasets[0].source),
            hint=way_to_fit(encoder, run.plan.bound.objective_config),
        )
    for side, tally in (("records", train), ("holdout records", tallies["holdout"])):
        for text in told_of_encoding(tally, side, encoder, run.plan.bound.objective_config):
            stage.notice(text)
    if train.endless:
        told = f"{train.endless} of {train.records} records end without a stop token"
        stage.notice(f"{told}: the model won't learn to stop there{_way_to_end(run)}")


def _way_to_end(run: RunContext) -> str:
    """Says what ends the turns of conversations; nothing where there are none."""
    eos = run.vocabulary.tokenizer.role_token("eos")
    name = next((name for name, id in run.vocabulary.tokenizer.special_tokens.items() if id == eos), None)
    if name is None or not run.plan.chats or run.plan.bound.recipe.data.end_of_turn:
        return ""
    return f"; data.end_of_turn: {json.dumps(name, ensure_ascii=False)} ends each answer with that token"


def _corpus(run: RunContext, stores: Mapping[str, TokenStore], tallies: Mapping[str, Tally]) -> Corpus:
    vocabulary = run.vocabulary
    stop = stop_tokens(run.plan.files, vocabulary.change, vocabulary.tokenizer, tallies["train"].stops)
    stop = [] if run.plan.head else stop  # it writes nothing
    held = tallies["holdout"]
    return Corpus(stores["train"], _holdout_of(run, stores["holdout"]), list(held.answers), stop, list(held.answered))


def _holdout_of(run: RunContext, store: TokenStore) -> TokenStore:
    masking = masking_in(run, "holdout")
    return MaskedStore.over(store, masking) if masking else store


def _check_resumed(run: RunContext, fingerprints: Mapping[str, str], encoder: Encoder) -> None:
    """Refuses to go on with other records than the run was started with, or to train on with other tokens of them."""
    data = run.resumed.manifest.data if run.resumed else None
    before = dict(data.fingerprint) if data else {}
    layout = before.pop("layout", None)
    trained = (run.folder / CHECKPOINTS).is_dir()
    if trained and layout is not None and layout != encoder.fingerprint:
        raise DataError(
            "records would become other tokens than when the run was started",
            where=str(run.folder),
            hint="The tokenizer's special tokens or what it puts around a text have changed: put its files back, or "
            f"start anew with {option('overwrite')}.",
        )
    if before and before != fingerprints:
        raise DataError(
            "the records have changed since the run was started",
            where=str(run.folder),
            hint=f"Put the old records back, or start anew with {option('overwrite')}.",
        )


def _check_same_stops(run: RunContext, stop: list[int]) -> None:
    """Refuses to go on where answers would end at other tokens than when the run was started."""
    before = run.resumed.manifest.stop_tokens if run.resumed else []
    if before and before != stop:
        raise DataError(
            f"the run was started with the stop tokens {before}, which would now be {stop}",
            where=str(run.folder),
            hint=f"The base model's generation_config.json has changed: put it back, or start anew "
            f"with {option('overwrite')}.",
        )


def _facts(run: RunContext, stores: Mapping[str, TokenStore], tallies: Mapping[str, Tally]) -> dict[str, Any]:
    systems, tools = tallies["train"].systems, tallies["train"].tools
    asks = run.plan.head is None or run.plan.bound.objective_config.judges_texts
    facts: dict[str, Any] = {}
    for name, store in stores.items():
        facts |= {
            f"{name}_examples": len(store),
            f"{name}_tokens": len(store.ids),
            f"{name}_loss_tokens": tallies[name].loss_tokens,
        }
    return facts | {
        "files": [dataset.facts() for dataset in run.plan.datasets],
        "data_sets": run.plan.data_sets(),
        **({"holdout_by": by} if (by := run.plan.holdout_by()) else {}),
        "system": systems[0] if len(systems) == 1 else None,
        "tools": json.loads(tools[0]) if len(tools) == 1 and tools[0] else [],
        "example_prompt": tallies["holdout"].prompt or tallies["train"].prompt if asks else None,
        "prompts": "chat" if run.plan.chats else "plain",
    }
