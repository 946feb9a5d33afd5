"""What a proof compares: whole examples at places spread over them, and a drift as well as an outlier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from graftkit.errors import FolderError
from graftkit.flow.exports.probes import KEPT, LEAST, Probes, _sequences, _spread, compare
from graftkit.interfaces.exporter import Probe
from graftkit.store.token_store import TYPE, Example, TokenStore


def store(*lengths: int) -> TokenStore:
    return TokenStore.of([Example(np.arange(n) % 90, np.ones(n, bool), 1) for n in lengths])


def probes() -> Probes:
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 300, generator=random)
    return Probes([[1, 2, 3, 4]], [logits], [[1, 3]], "abc", {"longest": 4})


def test_the_longest_example_is_among_them_whole() -> None:
    found, types = _sequences(store(30, 20, 200, 10, 5), LEAST)
    assert [len(ids) for ids in found] == [200, 30, 20, 10] and not types


def test_they_have_no_more_tokens_than_allowed() -> None:
    assert [len(ids) for ids in _sequences(store(30, 20, 700), 512)[0]] == [512]
    assert sum(len(ids) for ids in _sequences(store(100, 100, 100, 100), 250)[0]) == 250


def test_places_are_spread_and_end_at_the_last_token() -> None:
    assert _spread(1) == [0] and _spread(3)[-1] == 2
    positions = _spread(100)
    assert len(positions) == KEPT and positions[0] < 20 and positions[-1] == 99


def test_probes_are_read_as_they_were_written(tmp_path: Path) -> None:
    written = probes()
    written.save(tmp_path / "probes.safetensors")
    read = Probes.load(tmp_path / "probes.safetensors")
    assert (read.ids, read.positions, read.tokenizer_fingerprint) == (written.ids, written.positions, "abc")
    assert read.coverage == {"longest": 4} and torch.equal(read.logits[0], written.logits[0])


def test_types_of_tokens_are_kept_with_them(tmp_path: Path) -> None:
    typed = [replace(example, by_token={TYPE: np.ones(len(example.ids), np.uint8)}) for example in store(30, 700)]
    found, types = _sequences(TokenStore.of(typed), 512)
    assert [len(of) for of in types] == [len(ids) for ids in found] == [512]
    path = tmp_path / "probes.safetensors"
    replace(probes(), token_type_ids=[[0, 0, 1, 1]]).save(path)
    assert Probes.load(path).requested == [Probe((1, 2, 3, 4), (1, 3), (0, 0, 1, 1))]
    replace(probes(), token_type_ids=[[0, 0, 1]]).save(path)
    with pytest.raises(FolderError, match="not a type for each token"):
        Probes.load(path)


def test_the_same_probes_are_the_same_bytes(tmp_path: Path) -> None:
    path, found = tmp_path / "probes.safetensors", set()
    for _ in range(8):
        replace(probes(), coverage={f"c{n}": n for n in range(9)}).save(path)
        found.add(path.read_bytes())
    assert len(found) == 1 and Probes.load(path).coverage["c8"] == 8


def test_rounding_passes_and_a_drift_within_the_limit_does_not() -> None:
    expected = probes()
    noise = 2e-3 * torch.randn(2, 300, generator=torch.Generator().manual_seed(1))
    rounded = compare(expected, [expected.logits[0] + noise])
    assert rounded.within(0.01) and rounded.top1 == 1
    drifted = compare(expected, [expected.logits[0] + 0.009])
    assert drifted.largest < 0.01 and not drifted.within(0.01)


def test_padding_beyond_the_vocabulary_is_left_out_and_nan_is_not() -> None:
    expected = probes()
    padded = torch.cat([expected.logits[0], torch.full((2, 4), 1e9)], dim=1)
    assert compare(expected, [padded]).largest == 0
    broken = expected.logits[0].clone()
    broken[0, 0] = torch.nan
    assert not compare(expected, [broken]).within(1e9)
    assert not compare(expected, [expected.logits[0][:1]]).within(1e9)


def test_probes_agree_but_for_rounding_and_sketches() -> None:
    own = probes()
    rounded = replace(own, logits=[logits * (1 + 2e-6) for logits in own.logits])
    assert own.agrees_with(rounded) and own.agrees_with(replace(own, sketches={"w": torch.ones(2, 4)}))
    for other in (
        replace(own, logits=[logits * (1 + 1e-4) for logits in own.logits]),
        replace(own, logits=[logits[:, :-1] for logits in own.logits]),
        replace(own, logits=[logits * float("nan") for logits in own.logits]),
        replace(own, tokenizer_fingerprint="other"),
        replace(own, coverage={"sequences": 9}),
    ):
        assert not own.agrees_with(other) and not other.agrees_with(own)


def test_an_export_has_a_logit_for_every_token() -> None:
    """Rows beyond the tokenizer's ids are padding, which an export may lack or have; others are not."""
    expected = replace(probes(), columns=290)
    logits = expected.logits[0]
    assert (
        compare(expected, [logits[:, :290]]).largest == compare(expected, [torch.cat([logits, logits], 1)]).largest == 0
    )
    assert compare(expected, [logits[:, :289]]).largest == float("inf")


def test_how_many_columns_there_must_be_is_kept(tmp_path: Path) -> None:
    replace(probes(), columns=290).save(tmp_path / "probes.safetensors")
    assert Probes.load(tmp_path / "probes.safetensors").columns == 290
