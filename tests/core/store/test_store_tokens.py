"""Tokens come back from the disk as they went, and fingerprints are the same everywhere."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.errors import StorageError
from graftkit.store.fingerprint import fingerprint
from graftkit.store.token_store import ARRAYS, SEQUENCE, Example, TokenStore
from graftkit.training.batch import pack
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

_ROWS = st.lists(
    st.lists(st.tuples(st.integers(0, 2**32 - 1), st.booleans()), max_size=9).flatmap(
        lambda tokens: st.tuples(st.just(tokens), st.integers(0, len(tokens)))
    ),
    max_size=6,
)


def example(tokens: list[tuple[int, bool]], prompt_length: int = 0) -> Example:
    ids, loss_mask = [token for token, _ in tokens], [learnt for _, learnt in tokens]
    return Example(np.array(ids, dtype=np.int64), np.array(loss_mask, dtype=bool), prompt_length)


def same(first: Example, second: Example) -> bool:
    return (
        np.array_equal(first.ids, second.ids)
        and np.array_equal(first.loss_mask, second.loss_mask)
        and (first.ids.dtype, first.loss_mask.dtype, first.prompt_length)
        == (second.ids.dtype, second.loss_mask.dtype, second.prompt_length)
    )


@settings(max_examples=50)
@given(_ROWS)
def test_rows_come_back_as_they_went(
    tmp_path_factory: pytest.TempPathFactory, examples: list[tuple[list[tuple[int, bool]], int]]
) -> None:
    examples = [example(tokens, prompt_length) for tokens, prompt_length in examples]
    path = tmp_path_factory.getbasetemp() / "round_trip.safetensors"
    TokenStore.of(examples).save(path)
    store = TokenStore.load(path)
    assert len(store) == len(examples)
    assert store.lengths.tolist() == [len(example.ids) for example in examples]
    assert all(same(kept, given) for kept, given in zip(store, examples, strict=True))


def with_columns(count: int = 3) -> list[Example]:
    """Examples with a column of each kind that no reader of stores knows of."""
    return [
        Example(
            np.arange(n),
            np.full(n, 0.25, np.float32),
            0,
            {"advantage": np.arange(n, dtype=np.float32) / 7},
            {"group": np.int32(n % 2), "target": np.float64(n / 3)},
        )
        for n in range(1, count + 1)
    ]


def test_a_column_of_any_name_is_stored_and_handed_to_batches(tmp_path: Path) -> None:
    examples = with_columns()
    TokenStore.of(examples).save(tmp_path / "a")
    store = TokenStore.load(tmp_path / "a")
    assert load_file(tmp_path / "a").keys() == {*ARRAYS, "token.advantage", "example.group", "example.target"}
    assert {values.dtype for values in store.by_example.values()} == {np.dtype("i4"), np.dtype("f8")}
    batch = pack([store[2], store[0]], torch.device("cpu"))
    assert batch.by_token["advantage"].tolist() == [*examples[2].by_token["advantage"], 0.0]
    assert batch.by_example["group"].tolist() == [1, 1] and batch.by_example["group"].dtype == torch.int32
    assert batch.by_example["target"].tolist() == [1.0, 1 / 3]


def test_counts_leave_the_first_token_out_which_nothing_predicts() -> None:
    store = TokenStore.of([*with_columns(4)])
    assert store.loss_tokens.tolist() == [0, 1, 2, 3] and store.weight_sum.tolist() == [0.0, 0.25, 0.5, 0.75]
    assert TokenStore.of([example([]), example([(1, True), (2, True)]), example([])]).loss_tokens.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"loss_weight": np.array([1.0, -1.0], np.float32)}, "a loss weight is a finite number from 0"),
        ({"loss_weight": np.array([1.0, np.nan], np.float32)}, "a loss weight is a finite number from 0"),
        ({"by_token": {"advantage": np.zeros(3, np.float32)}}, r"'advantage' has the shape \[4\], not \[3\]"),
        ({"by_token": {}}, "have the same columns"),
        ({"by_token": {"advantage": np.zeros(2, np.float64)}}, "'advantage' has several types"),
        ({"by_example": {"group": np.int32(1), "target": np.float32(1)}}, "'target' has several types"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(change: dict[str, Any], said: str) -> None:
    first, second = with_columns(2)
    with pytest.raises(ValueError, match=said):
        TokenStore.of([first, replace(second, **change)])


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"Group": np.zeros(1)}, "not 'Group'"),
        ({"../x": np.zeros(1)}, "not '../x'"),
        ({"half": np.zeros(1, np.float16)}, "the type float16"),
        ({"group": np.zeros(1)}, "two columns are called 'group'"),
    ],
)
def test_a_column_of_another_name_or_type_is_refused(column: dict[str, Any], said: str) -> None:
    (only,) = with_columns(1)
    with pytest.raises(ValueError, match=said):
        TokenStore.of([replace(only, by_token=column)])


def test_a_stored_column_of_another_length_is_damaged(tmp_path: Path) -> None:
    arrays = TokenStore.of(with_columns()).arrays()
    save_file({**arrays, "example.group": np.zeros(2, np.int32)}, tmp_path / "a")
    with pytest.raises(StorageError, match=r"'group' has the shape \[2\], not \[3\]"):
        TokenStore.load(tmp_path / "a")
    save_file({**arrays, "example.Group": np.zeros(3, np.int32)}, tmp_path / "a")
    with pytest.raises(StorageError, match="not 'Group'"):
        TokenStore.load(tmp_path / "a")
    save_file({**arrays, "stray": np.zeros(3, np.int32)}, tmp_path / "a")
    with pytest.raises(StorageError, match="it holds .*stray"):
        TokenStore.load(tmp_path / "a")


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


def test_an_example_of_several_sequences_falls_apart_where_they_begin() -> None:
    one = Example(
        np.arange(6), np.array([0, 1, 0, 0, 0, 1], np.float32), 1, {SEQUENCE: np.array([0, 0, 1, 1, 1, 1], np.uint8)}
    )
    other = Example(np.arange(3), np.array([0, 1, 0], np.float32), 1, {SEQUENCE: np.array([0, 0, 1], np.uint8)})
    store = TokenStore.of([one, other])
    parts = [(s.ids.tolist(), s.loss_weight.tolist(), s.prompt_length) for e in store for s in e.sequences]
    assert parts == [([0, 1], [0, 1], 1), ([2, 3, 4, 5], [0, 0, 0, 1], 3), ([0, 1], [0, 1], 1), ([2], [0], 1)]
    assert store.sequences_per_example == 2 and store.longest_sequence == 4
    assert TokenStore.of([]).longest_sequence == 0
    alone = TokenStore.of([Example(np.arange(5), np.ones(5, np.float32), 1)])
    assert (
        alone.longest_sequence == 5
        and alone.sequences_per_example == 1
        and alone[0].sequences[0].ids.tolist() == [0, 1, 2, 3, 4]
    )
