"""Data sets of the hub: which files are read, at which commit, what is refused; against a stand-in on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from graftkit import load_recipe
from graftkit.corpus.dataset import Dataset
from graftkit.errors import DataError, GraftkitError
from graftkit.flow.records.datasets import open_datasets
from graftkit.flow.records.hub_datasets import HubDataset, choose_files, fetch_dataset, parse_hub_path
from graftkit.recipe.bind import bind
from graftkit.testing import isolated_host
from hub_stand_in import FIRST, SECOND, StandIn


def lines(*words: str) -> bytes:
    return "".join(json.dumps({"text": word}) + "\n" for word in words).encode()


def opened(file: Any, pinned: dict[str, str] | None = None) -> list[Dataset]:
    host = isolated_host()
    return open_datasets(bind(load_recipe({"model": "./m", "data": {"train": file}}), host), host, "train", pinned)


def words(datasets: list[Dataset]) -> list[Any]:
    return [sample.key() for dataset in datasets for sample in dataset]


def refusal(file: Any) -> str:
    with pytest.raises(GraftkitError) as caught:
        opened(file)
    return str(caught.value)


def test_the_training_files_are_fetched_at_a_commit_that_a_resumed_run_keeps(
    hub: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.commits[FIRST] = {
        "data/train-00000-of-00002.jsonl": lines("a"),
        "data/train-00001-of-00002.jsonl": lines("b"),
        "data/test-00000-of-00001.jsonl": lines("c"),
        "README.md": b"# About",
        "name.py": b"raise SystemExit",
    }
    found = opened("hub:org/name")
    assert words(found) == words(opened("hf://datasets/org/name")) != []
    assert [dataset.source.path.name for dataset in found] == [f"train-0000{n}-of-00002.jsonl" for n in (0, 1)]
    origin = found[0].origin
    assert origin and (origin.revision, origin.commit, origin.files, origin.cached) == ("main", FIRST, 2, False)
    assert found[0].facts()["commit"] == FIRST
    assert not any("test-0" in path or "name.py" in path for path in hub.asked if "resolve" in path)
    assert len(words(opened({"path": "hub:org/name", "split": "test"}))) == 1
    hub.commits[SECOND] = {"data/train.jsonl": lines("x", "y", "z")}
    hub.branches["main"] = SECOND
    assert len(words(opened("hub:org/name"))) == 3
    assert words(opened("hub:org/name", {"hub:org/name@main": FIRST})) == words(found)
    assert words(opened({"path": "hub:org/name", "revision": FIRST})) == words(found)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    asked = len(hub.asked)
    [again] = opened("hub:org/name")
    assert again.origin and again.origin.cached and again.origin.commit == SECOND
    assert "the hub was not asked" in again.origin.describe() and len(hub.asked) == asked


def test_what_the_hub_does_not_have_is_told_in_words(hub: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.commits[FIRST] = {"name.py": b"raise SystemExit", "README.md": b"# About"}
    told = refusal("hub:org/name")
    assert "is a script, name.py" in told and "never run" in told and "refs/convert/parquet" in told
    assert "the hub has no such data set" in refusal("hub:org/other")
    assert "the data set has no revision old" in refusal({"path": "hub:org/name", "revision": "old"})
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "not in the cache on this machine" in refusal("hub:org/name")


def chosen(*names: str, files: str = "", split: str | None = None) -> list[str]:
    return choose_files(names, HubDataset("org/name", "main", files), split, "here")


@pytest.mark.parametrize(
    ("names", "split", "expected"),
    [
        (["train.jsonl", "test.jsonl", "README.md"], None, ["train.jsonl"]),
        (["train.jsonl", "dev.jsonl"], "validation", ["dev.jsonl"]),
        (["all.csv", ".gitattributes", "dataset_infos.json"], None, ["all.csv"]),
        (["data/train/a.parquet", "data/train/b.parquet", "data/test/a.parquet"], None, None),
        (
            ["data/train_sft-00000-of-00001.parquet", "data/train_gen-00000-of-00001.parquet"],
            "train_sft",
            ["train_sft"],
        ),
        (["data/train-00000-of-00001.parquet", "data/train_gen-00000-of-00001.parquet"], None, ["train-"]),
        (["training.json.gz", "trained.json", "eval.json"], None, ["training.json.gz"]),
        (["a.txt", "b.txt", "README.md"], None, ["a.txt", "b.txt"]),
    ],
)
def test_files_are_chosen_by_their_common_names(
    names: list[str], split: str | None, expected: list[str] | None
) -> None:
    wanted = [name for name in names if any(part in name for part in expected or ["/train/"])]
    assert chosen(*names, split=split) == wanted


@pytest.mark.parametrize(
    ("names", "split", "message"),
    [
        (["train.jsonl", "train.parquet"], None, "of several kinds: .jsonl, .parquet"),
        (["en/train.jsonl", "de/train.jsonl"], None, "lie in 2 folders, which may be as many data sets: de, en"),
        (["test.jsonl", "dev.jsonl"], None, "no file of it is of the split train; it has validation and test"),
        (["train_sft-00000-of-00001.csv", "train_gen-00000-of-00001.csv"], None, "several splits of that name"),
        (["model.safetensors"], None, "no file of records"),
        (
            ["data/train-00000-of-00003.parquet", "data/train-00002-of-00003.parquet"],
            None,
            "data/train-00001-of-00003.parquet is missing: 2 of 3 parts are there",
        ),
        (["train-00000-of-00002.csv"], None, "train-00001-of-00002.csv is missing"),
        (["train-1-of-3.csv", "train-3-of-3.csv"], None, "train-2-of-3.csv is missing"),
        (["train-00000-of-00001.csv", "train-00000-of-00002.csv"], None, "counted in several ways"),
        (["train.jsonl", "train.jsonl.gz"], None, "a file is there twice: train.jsonl and train.jsonl.gz"),
        (["default/partial-train/0000.parquet"], None, "a part of the split alone"),
    ],
)
def test_files_that_may_be_several_data_sets_are_refused(names: list[str], split: str | None, message: str) -> None:
    with pytest.raises(DataError) as caught:
        chosen(*names, split=split)
    assert message in str(caught.value) and str(caught.value).startswith("here")


@pytest.mark.parametrize("name", ["a--b/c", "a/b..c", "a/" + "b" * 200, "a/-b"])
def test_a_name_that_the_hub_gives_to_nothing_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="names no data set of the hub"):
        fetch_dataset(parse_hub_path(f"hub:{name}", None, "r.yaml"), None, {}, "r.yaml")


def test_a_pattern_names_files_as_it_stands() -> None:
    names = ("de/train.jsonl", "en/train.jsonl", "en/test.jsonl", "en/.hidden.jsonl")
    assert chosen(*names, files="en/*.jsonl") == ["en/test.jsonl", "en/train.jsonl"]
    assert chosen(*names, files="en/train.jsonl") == ["en/train.jsonl"]
    assert chosen(*names, files="*.jsonl", split="test") == ["en/test.jsonl"]
    parts = ("train-00000-of-00002.csv", "train-00002-of-00003.csv", "partial-train/0.csv")
    assert [chosen(*parts, files=part) for part in parts] == [[part] for part in parts]
    with pytest.raises(DataError, match="train-00001-of-00002.csv is missing"):
        chosen(parts[0], files="train-*")
    assert chosen("train-1-of-2.csv", "train-2-of-2.csv") == ["train-1-of-2.csv", "train-2-of-2.csv"]
    with pytest.raises(DataError, match="no file of it matches fr"):
        chosen(*names, files="fr/*")
    assert parse_hub_path("hf://datasets/o/n@v1/data/*.csv", None, "") == HubDataset("o/n", "v1", "data/*.csv")
    assert parse_hub_path("hub:o/n@refs%2Fconvert%2Fparquet", None, "").revision == "refs/convert/parquet"
    for path, revision in (
        ("hub:o/n@v1", "v2"),
        ("hub:name", None),
        ("hf://buckets/o/n", None),
        ("hub:o/n", "../../x"),
        ("hub:o/n", "/x"),
    ):
        with pytest.raises(DataError):
            parse_hub_path(path, revision, "here")


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("-", "records.jsonl"),
        ("https://example.org/a/b.jsonl?x=1", "--output b.jsonl 'https://example.org/a/b.jsonl?x=1'"),
        ("http://example.org/b.jsonl", "http:// is no file on this machine"),
        ("https://huggingface.co/datasets/org/name/blob/main/a.csv", "hub:org/name"),
        ("file:///etc/passwd", "write the file's path"),
        ("s3://bucket/a.parquet", "Copy it to this machine"),
    ],
)
def test_records_elsewhere_are_refused_with_the_way_out(path: str, message: str) -> None:
    assert message in refusal(path)


def test_a_revision_and_a_split_are_the_hubs(tmp_path: Path) -> None:
    for key in ("revision", "split"):
        assert f"{key}: only a data set of the hub has one" in refusal({"path": "a.jsonl", key: "x"})


def saved(folder: Path, *words: str) -> Path:
    """Writes what datasets.save_to_disk writes: a folder of Arrow streams, in an order of its own."""
    import pyarrow

    folder.mkdir(parents=True)
    names = [f"data-{number:05}-of-{len(words):05}.arrow" for number in range(len(words))][::-1]
    for name, word in zip(names, words, strict=True):
        table = pyarrow.table({"text": [word, word]})
        with pyarrow.OSFile(str(folder / name), "wb") as file, pyarrow.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    (folder / "dataset_info.json").write_text('{"features": {"text": {"dtype": "string", "_type": "Value"}}}')
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def test_a_saved_data_set_is_read_as_its_state_says_without_what_was_computed_from_it(tmp_path: Path) -> None:
    folder = saved(tmp_path / "set", "one", "two")
    (folder / "cache-0123.arrow").write_bytes((folder / "data-00000-of-00002.arrow").read_bytes())
    found = opened(str(folder))
    assert [dataset.source.path.name[:10] for dataset in found] == ["data-00001", "data-00000"]
    assert [sample.text for dataset in found for sample in dataset] == ["one", "one", "two", "two"]  # type: ignore[union-attr]
    for wrong in ("{", '{"_data_files": [{"filename": "../a.arrow"}]}', '{"_data_files": 3}', "[]"):
        (folder / "state.json").write_text(wrong)
        assert "the state.json names no files of records" in refusal(str(folder))
    indexed = {
        "_data_files": [{"filename": "data-00000-of-00002.arrow"}],
        "_indices_data_files": [{"filename": "i.arrow"}],
    }
    (folder / "state.json").write_text(json.dumps(indexed))  # of a select, by old versions of datasets
    assert "saved with an index" in refusal(str(folder))


def test_a_folder_of_several_splits_or_without_all_parts_is_refused(tmp_path: Path) -> None:
    for name in ("train.jsonl", "more.jsonl", "testing.md"):
        (tmp_path / name).write_bytes(lines(name))
    assert len(opened(str(tmp_path))) == 3
    (tmp_path / "heldout.jsonl").write_bytes(lines("x"))
    told = refusal(str(tmp_path))
    assert "several splits: train (train.jsonl), validation (heldout.jsonl)" in told and "**/*" in told
    assert len(opened(f"{tmp_path}/**/*.jsonl")) == 3
    for number in (0, 2):
        (tmp_path / f"part-{number}-of-3.jsonl").write_bytes(lines("x"))
    assert "part-1-of-3.jsonl is missing: 2 of 3" in refusal(f"{tmp_path}/part*.jsonl")
    assert len(opened([f"{tmp_path}/part-0-of-3.jsonl", f"{tmp_path}/*-2-of-3.jsonl"])) == 2


def test_of_saved_splits_one_is_to_be_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        saved(tmp_path / "all" / split, split)
    (tmp_path / "all/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    told = refusal(str(tmp_path / "all"))
    assert "holds several data sets: test, train" in told and f"Name one: {tmp_path / 'all/train'}" in told
    assert len(opened(str(tmp_path / "all/train"))) == 1
