"""A store that grows on the disk is the one that was made at once, whatever happened in between."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from graftkit.errors import StorageError
from graftkit.store.token_store import ARRAYS, Example, TokenStore
from graftkit.store.token_writer import TokenWriter, find_store
from graftkit.training.batch import pack
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from safetensors.numpy import save as reference_save

ABOUT = {"format": "graftkit", "tokenizer": "f" * 64}


def store(*lengths: int) -> TokenStore:
    examples = [np.arange(length) for length in lengths]
    return TokenStore.of(Example(example, example % 2 == 1, min(1, len(example))) for example in examples)


PIECES = [store(3, 1), store(), store(5), store(2, 2, 2), store(1)]
WHOLE = store(3, 1, 5, 2, 2, 2, 1)


def written(folder: Path, pieces: list[TokenStore] = PIECES) -> TokenWriter:
    writer = TokenWriter(folder, "key")
    for piece in pieces:
        writer.append(piece)
    return writer


def sealed(writer: TokenWriter, path: Path) -> bytes:
    writer.checkpoint({"examples": 7})
    writer.seal(path, ABOUT)
    writer.close()
    return path.read_bytes()


def same(first: TokenStore, second: TokenStore) -> bool:
    return all(np.array_equal(getattr(first, name), getattr(second, name)) for name in ARRAYS)


def test_pieces_make_the_whole_as_safetensors_reads_it(tmp_path: Path) -> None:
    sealed(written(tmp_path / "parts"), tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")
    assert found.keys() == ARRAYS.keys()
    assert all(found[name].dtype == dtype for name, dtype in ARRAYS.items())
    assert same(TokenStore(**found), WHOLE) and same(TokenStore.load(tmp_path / "a.safetensors"), WHOLE)


@given(st.lists(st.integers(0, 5), max_size=5))
def test_a_saved_store_has_the_bytes_that_safetensors_gives_it(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int]
) -> None:
    path = tmp_path_factory.getbasetemp() / "reference.safetensors"
    made = store(*lengths)
    made.save(path)
    assert path.read_bytes() == reference_save({name: getattr(made, name) for name in ARRAYS})


def test_the_header_says_what_the_tokens_are_of(tmp_path: Path) -> None:
    data = sealed(written(tmp_path / "parts"), tmp_path / "a.safetensors")
    about = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    assert about["tokenizer"] == "f" * 64 and about["key"] == "key"


@pytest.mark.parametrize("done", range(len(PIECES) + 1))
@pytest.mark.parametrize("more", [0, 1, 2])
def test_after_a_kill_it_goes_on_from_its_last_checkpoint(tmp_path: Path, done: int, more: int) -> None:
    expected = sealed(written(tmp_path / "never"), tmp_path / "never.safetensors")
    killed = written(tmp_path / "killed", PIECES[:done])
    if done:
        killed.checkpoint(done)
    for piece in PIECES[done : done + more]:
        killed.append(piece)
    for file in killed._files.values():
        file.flush()
    again = TokenWriter(tmp_path / "killed", "key")
    assert (again.note or 0) == done
    for piece in PIECES[again.note or 0 :]:
        again.append(piece)
    assert sealed(again, tmp_path / "killed.safetensors") == expected
    killed.close()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[3] ^= 1
    path.write_bytes(data)


DAMAGES: dict[str, Any] = {
    "a bit flipped": lambda folder: flip(folder / "ids"),
    "an end lost": lambda folder: (folder / "loss_tokens").write_bytes(b"\1"),
    "a file lost": lambda folder: (folder / "prompt_lengths").unlink(),
    "a progress that is no JSON": lambda folder: (folder / "progress.json").write_text("{"),
    "a progress that is no object": lambda folder: (folder / "progress.json").write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_beginning_is_begun_anew(tmp_path: Path, damage: str) -> None:
    expected = sealed(written(tmp_path / "never"), tmp_path / "never.safetensors")
    writer = written(tmp_path / "parts")
    writer.checkpoint(5)
    writer.close()
    DAMAGES[damage](tmp_path / "parts")
    assert sealed(again := written(tmp_path / "parts"), tmp_path / "a") == expected
    assert again.note == {"examples": 7}


def test_a_beginning_of_other_rows_is_begun_anew(tmp_path: Path) -> None:
    writer = written(tmp_path / "parts")
    writer.checkpoint(5)
    writer.close()
    other = TokenWriter(tmp_path / "parts", "other key")
    assert (other.note, other.tokens) == (None, 0)
    other.close()


def test_a_sealed_store_is_found_by_its_key_while_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    assert find_store(path, "key") is None
    data = sealed(written(tmp_path / "parts"), path)
    assert find_store(path, "key") == {"examples": 7}
    assert find_store(path, "another") is None
    for place in (-1, -20, len(data) // 2, 20, 3):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        assert find_store(path, "key") is None, place
    path.write_bytes(data[:-1])
    assert find_store(path, "key") is None


@given(st.binary(max_size=40) | st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)))
def test_no_content_raises_anything_but_a_storage_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | tuple[int, bytes]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    WHOLE.save(path)
    data = path.read_bytes()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_bytes(data[: content[0]] + content[1] + data[content[0] + len(content[1]) :])
    try:
        len(TokenStore.load(path))
    except StorageError as error:
        assert str(path) in str(error)


def columned(*lengths: int, **columns: Any) -> TokenStore:
    given = columns or {"group": np.int32(3)}
    examples = [Example(np.arange(n), np.ones(n), 0, {"mark": np.arange(n, dtype=np.uint8)}, given) for n in lengths]
    return TokenStore.of(examples)


def test_further_columns_grow_with_the_rest_and_survive_a_kill(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path / "parts", "key")
    writer.append(TokenStore.of([]))
    writer.append(columned(3, 1))
    writer.checkpoint({"examples": 7})
    writer.append(columned(5))
    writer.close()
    again = TokenWriter(tmp_path / "parts", "key")
    with pytest.raises(ValueError, match=r"these examples have .*, those before them .*example\.group"):
        again.append(columned(1, other=np.int32(1)))
    with pytest.raises(ValueError, match=r"example\.group \(float32\)"):
        again.append(columned(1, group=np.float32(1)))
    again.append(columned(2))
    sealed(again, tmp_path / "a")
    whole = columned(3, 1, 2).arrays()
    found = TokenStore.load(tmp_path / "a").arrays()
    assert list(found) == list(whole) and all(np.array_equal(found[name], whole[name]) for name in whole)
    assert find_store(tmp_path / "a", "key") == {"examples": 7}


def wide(*lengths: int, width: int = 3) -> TokenStore:
    columns = [np.arange(n * width, dtype=np.float32).reshape(n, width) for n in lengths]
    return TokenStore.of(Example(np.arange(len(c)), np.ones(len(c)), 0, {"several": c}) for c in columns)


def test_columns_of_several_numbers_grow_with_the_rest_and_survive_a_kill(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path / "parts", "key")
    writer.append(wide(3, 1))
    writer.checkpoint({"examples": 2})
    writer.append(wide(5))
    writer.close()
    again = TokenWriter(tmp_path / "parts", "key")
    for other in (wide(1, width=2), wide(1, width=1)):
        with pytest.raises(ValueError, match="those before them of .*'token.several': 3"):
            again.append(other)
    again.append(wide(2))
    sealed(again, tmp_path / "a")
    whole = wide(3, 1, 2)
    whole.save(tmp_path / "b")
    for path in (tmp_path / "a", tmp_path / "b"):
        found = TokenStore.load(path)
        assert load_file(path)["token.several"].shape == (6, 3)
        assert all(np.array_equal(values, whole.arrays()[name]) for name, values in found.arrays().items())
        assert found[0].by_token["several"].tolist() == whole[0].by_token["several"].tolist()
    assert find_store(tmp_path / "a", "key") == {"examples": 7}


def rowed(*lengths: int, width: int = 3) -> TokenStore:
    rows = [np.arange(n, n + width, dtype=np.uint8) for n in lengths]
    return TokenStore.of(
        Example(np.arange(n), np.ones(n), 0, {}, {"labels": row}) for n, row in zip(lengths, rows, strict=True)
    )


def test_rows_by_example_grow_with_the_rest_and_survive_a_kill(tmp_path: Path) -> None:
    writer = TokenWriter(tmp_path / "parts", "key")
    writer.append(rowed(3, 1))
    writer.checkpoint({"examples": 7})
    writer.append(rowed(5))
    writer.close()
    again = TokenWriter(tmp_path / "parts", "key")
    with pytest.raises(ValueError, match="those before them of .*'example.labels': 3"):
        again.append(rowed(1, width=2))
    again.append(rowed(2))
    sealed(again, tmp_path / "a")
    found = TokenStore.load(tmp_path / "a")
    assert found.by_example["labels"].tolist() == [[3, 4, 5], [1, 2, 3], [2, 3, 4]]
    assert [example.by_example["labels"].tolist() for example in found] == found.by_example["labels"].tolist()
    assert pack([*found], torch.device("cpu")).by_example["labels"].tolist() == found.by_example["labels"].tolist()
    with pytest.raises(ValueError, match="inhomogeneous"):
        TokenStore.of([rowed(1)[0], rowed(1, width=2)[0]])


def test_a_column_that_is_none_of_its_store_is_refused(tmp_path: Path) -> None:
    made = wide(3)
    given = {name: getattr(made, name) for name in ("ids", "loss_weight", "offsets", "prompt_lengths")}
    for shape, by in (((2, 3), "by_token"), ((3, 2, 2), "by_token"), ((2, 3), "by_example"), ((1, 2, 2), "by_example")):
        with pytest.raises(ValueError, match="has the shape"):
            TokenStore.from_arrays(**given, **{by: {"several": np.zeros(shape, np.float32)}})


def as_before_loss_weights(made: TokenStore) -> dict[str, Any]:
    """The arrays of a store as they were when a token was supervised or not."""
    marks = (made.loss_weight != 0).astype(np.uint8)
    return {"offsets": made.offsets, "prompt_lengths": made.prompt_lengths, "ids": made.ids, "supervised": marks}


def test_stores_of_before_loss_weights_are_encoded_again(tmp_path: Path) -> None:
    old = as_before_loss_weights(WHOLE)
    sums = json.dumps({name: zlib.crc32(values.tobytes()) for name, values in old.items()})
    about = {**ABOUT, "key": "key", "crc32": sums, "note": json.dumps({"examples": 7})}
    save_file(old, tmp_path / "old.safetensors", metadata=about)
    assert find_store(tmp_path / "old.safetensors", "key") is None
    with pytest.raises(StorageError, match="it holds ids, offsets, prompt_lengths, supervised"):
        TokenStore.load(tmp_path / "old.safetensors")

    folder = tmp_path / "parts"
    folder.mkdir()
    for name, values in old.items():
        (folder / name).write_bytes(values.tobytes())
    progress = {
        "key": "key",
        "sizes": {name: values.nbytes for name, values in old.items()},
        "crc32": json.loads(sums),
        "note": {"examples": 7},
    }
    (folder / "progress.json").write_text(json.dumps(progress))
    again = written(folder)
    assert sealed(again, tmp_path / "a") == sealed(written(tmp_path / "never"), tmp_path / "b")


def test_a_disk_that_is_full_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    writer = written(tmp_path / "parts")
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        writer.checkpoint(None)
    writer.close()
