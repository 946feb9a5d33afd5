"""The second stage: rows become tokens. torch is not loaded yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from graftkit.corpus.encode import Encoded, Encoder
from graftkit.corpus.rows import ChatRow, Row, TextRow
from graftkit.errors import DataError
from graftkit.flow.context import RunContext, StageScope
from graftkit.store.files import atomic_folder
from graftkit.store.fingerprint import fingerprint
from graftkit.store.token_store import TokenStore

__all__ = ["Corpus", "build_corpus"]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Tokens to learn from and tokens to judge by.

    Attributes:
        train: The rows to learn from.
        holdout: The held-out rows.
        answers: The numbers of the held-out rows that have a prompt and an answer.
        stop: The special tokens that end a supervised stretch: what a generation stops at.
    """

    train: TokenStore
    holdout: TokenStore
    answers: list[int]
    stop: list[int]


def build_corpus(run: RunContext) -> Corpus:
    """Writes `tokens/` and counts what became of the rows.

    Raises:
        DataError: A row can't be laid out, or nothing is left to learn.
    """
    with run.stage("corpus") as stage:
        rows = run.request.rows
        tell = stage.progress("rows")
        total = len(rows.train) + len(rows.holdout)
        train = _encode_all(run.request.encoder, rows.train, tell, 0, total)
        holdout = _encode_all(run.request.encoder, rows.holdout, tell, len(rows.train), total)
        corpus = _assemble(run, train, holdout)
        _check(run, stage, train, holdout, corpus)
        with atomic_folder(run.folder / "tokens") as folder:
            corpus.train.save(folder / "train.safetensors")
            corpus.holdout.save(folder / "holdout.safetensors")
        stage.facts |= _facts(run, corpus)
        run.facts["data"] = {**stage.facts, "fingerprint": _fingerprint(run)}
        _check_resumed(run)
        run.facts["stop_tokens"] = corpus.stop
        return corpus


def _encode_all(
    encoder: Encoder, rows: Sequence[Row], tell: Callable[[int, int], None], done: int, total: int
) -> list[Encoded]:
    encoded = []
    for number, row in enumerate(rows):
        if number % 200 == 0:
            tell(done + number, total)
        encoded.append(encoder.encode(row))
    return encoded


def _assemble(run: RunContext, train: Sequence[Encoded], holdout: Sequence[Encoded]) -> Corpus:
    tokenizer = run.request.tokenizer
    specials = set(tokenizer.special_tokens.values())
    examples = [
        (example, row) for row, item in zip(run.request.rows.holdout, holdout, strict=True) for example in item.examples
    ]
    stop = {
        int(example.ids[example.supervised.nonzero()[0][-1]]) for item in train for example in item.examples
    } & specials
    eos = tokenizer.role_token("eos")
    return Corpus(
        train=TokenStore.of(example for item in train for example in item.examples),
        holdout=TokenStore.of(example for example, _ in examples),
        answers=[n for n, (example, row) in enumerate(examples) if not isinstance(row, TextRow) and example.reply > 0],
        stop=sorted(stop | ({eos} if eos is not None else set())),
    )


def _check(
    run: RunContext, stage: StageScope, train: Sequence[Encoded], holdout: Sequence[Encoded], corpus: Corpus
) -> None:
    limit = run.request.encoder.max_length
    if not len(corpus.train):
        raise DataError(
            f"not one of {len(train)} rows has a supervised token within data.max_length ({limit})",
            where=run.request.bound.recipe.data.train[0],
            hint="Raise data.max_length: the prompts alone fill it.",
        )
    for side, rows in (("rows", train), ("held-out rows", holdout)):
        truncated = sum(item.truncated for item in rows)
        lost = sum(not item.examples for item in rows)
        if truncated:
            stage.notice(f"{truncated} of {len(rows)} {side} are longer than {limit} tokens and lose their end")
        if lost:
            stage.notice(f"{lost} of {len(rows)} {side} have nothing supervised left and are not used")
    endless = sum(not item.stops for item in train)
    if endless:
        stage.notice(f"{endless} of {len(train)} rows end without a stop token: the model won't learn to stop there")


def _check_resumed(run: RunContext) -> None:
    """Refuses to go on with other rows than the run was started with."""
    before = (run.resumed.manifest if run.resumed else {}).get("data")
    if before and before["fingerprint"] != run.facts["data"]["fingerprint"]:
        raise DataError(
            "the rows have changed since the run was started",
            where=str(run.folder),
            hint="Put the old rows back, or start anew with --overwrite.",
        )


def _facts(run: RunContext, corpus: Corpus) -> dict[str, object]:
    return {
        "train_rows": len(corpus.train),
        "train_tokens": len(corpus.train.ids),
        "train_supervised": int(corpus.train.supervised.sum()),
        "holdout_rows": len(corpus.holdout),
        "holdout_tokens": len(corpus.holdout.ids),
        "holdout_supervised": int(corpus.holdout.supervised.sum()),
        "files": run.request.bound.recipe.data.train,
        "system": _common_system(run.request.rows.train),
        "example_prompt": _example_prompt(run.request.rows.holdout),
    }


def _common_system(rows: Sequence[Row]) -> str | None:
    """Returns the system message that every conversation starts with, where it is one and the same."""
    found = {
        row.messages[0].content if row.messages[0].role == "system" else None
        for row in rows
        if isinstance(row, ChatRow)
    }
    return found.pop() if len(found) == 1 else None


def _example_prompt(rows: Sequence[Row]) -> str | None:
    """Returns what the user says in the first short held-out conversation, for somebody to try."""
    for row in rows:
        if isinstance(row, ChatRow):
            words = next((m.content for m in row.messages if m.role == "user"), "")
            if 0 < len(words) < 200 and "\n" not in words:
                return words
    return None


def _fingerprint(run: RunContext) -> dict[str, str]:
    rows = run.request.rows
    return {
        "train": fingerprint([row.key() for row in rows.train]),
        "holdout": fingerprint([row.key() for row in rows.holdout]),
    }
