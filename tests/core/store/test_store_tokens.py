"""Tokens come back from the disk as they went, and fingerprints are the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from graftkit.errors import StorageError
from graftkit.store.fingerprint import fingerprint
from graftkit.store.token_store import Example, TokenStore
from hypothesis import given, settings
from hypothesis import strategies as st

_ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), max_size=9).flatmap(
        lambda tokens: st.tuples(st.just(tokens), st.integers(0, len(tokens)))
    ),
    max_size=6,
)


def example(tokens: list[tuple[int, bool]], reply: int = 0) -> Example:
    ids, supervised = [token for token, _ in tokens], [learnt for _, learnt in tokens]
    return Example(np.array(ids, dtype=np.int64), np.array(supervised, dtype=bool), reply)


def same(first: Example, second: Example) -> bool:
    return (
        np.array_equal(first.ids, second.ids)
        and np.array_equal(first.supervised, second.supervised)
        and (first.ids.dtype, first.supervised.dtype, first.reply)
        == (second.ids.dtype, second.supervised.dtype, second.reply)
    )


@settings(max_examples=50, deadline=None)
@given(_ROWS)
def test_rows_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[list[tuple[int, bool]], int]]
) -> None:
    examples = [example(tokens, reply) for tokens, reply in rows]
    path = tmp_path_factory.getbasetemp() / "round_trip.safetensors"
    TokenStore.of(examples).save(path)
    store = TokenStore.load(path)
    assert len(store) == len(examples)
    assert store.lengths.tolist() == [len(row.ids) for row in examples]
    assert all(same(kept, given) for kept, given in zip(store, examples, strict=True))


def test_a_row_is_found_by_its_number() -> None:
    store = TokenStore.of([example([(1, True)]), example([]), example([(2, False), (3, True)], 1)])
    assert store[2].ids.tolist() == [2, 3]
    assert store[1].ids.tolist() == []
    assert store.offsets.tolist() == [0, 1, 1, 3]


def test_one_store_is_one_file_of_the_same_bytes(tmp_path: Path) -> None:
    store = TokenStore.of([example([(7, True), (8, False)])])
    for name in ("a", "b"):
        store.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_store_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        TokenStore.of([]).save(tmp_path / "missing" / "a")


def test_a_fingerprint_does_not_depend_on_the_order_of_keys() -> None:
    assert fingerprint({"a": 1, "b": [2, "ü"]}) == fingerprint({"b": [2, "ü"], "a": 1})
    assert fingerprint({"a": 1}) != fingerprint({"a": "1"}) != fingerprint(["a", "1"])
    assert len(fingerprint("\ud800")) == 64


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    code = "from graftkit.store.fingerprint import fingerprint; print(fingerprint({'b': ['é', 1.5], 'a': None}))"
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert found == {fingerprint({"a": None, "b": ["é", 1.5]})}
