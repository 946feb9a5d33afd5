"""A corpus of files gives all its text, in moderate stretches, in one order; what can't be read is named."""

from __future__ import annotations

import glob
import json
import os
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from graftkit.corpus.file_search import files_matching, own_folders
from graftkit.corpus.stretches import STRETCH, read_stretches
from graftkit.corpus.text_paths import find_data_files, find_text_files
from graftkit.corpus.texts import TextFiles, split_by_file, text_files
from graftkit.errors import DataError
from graftkit.interfaces.record_source import RecordSource
from graftkit.report.run_manifest import RunManifest
from graftkit.testing.records import open_files
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with files of several kinds."""
    for name, text in {
        "a.txt": "alpha\n",
        "docs/b.md": "beta\n",
        "docs/deep/c.py": "gamma = 1\n",
        "docs/picture.png": "no text",
        "docs/.hidden/d.txt": "delta\n",
        "docs/empty.txt": "",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def texts_in(patterns: Sequence[str], where: str = "") -> TextFiles:
    return text_files(patterns, lambda path: open_files([path])[0], where)


def refusal(*patterns: str, where: str = "") -> str:
    with pytest.raises(DataError) as caught:
        texts_in(patterns, where)
    return str(caught.value)


def names(texts: TextFiles) -> list[str]:
    return [path.name for path in texts.files]


def test_files_folders_and_patterns_are_read(place: Path) -> None:
    assert list(texts_in(["a.txt"])) == ["alpha\n"]
    assert names(texts_in(["docs"])) == ["b.md", "c.py"]
    assert names(texts_in(["docs/*.md", "*.txt"])) == ["a.txt", "b.md"]
    assert names(texts_in(["docs/**/*.py"])) == ["c.py"]
    assert names(texts_in(["docs/picture.png"])) == ["picture.png"], "what is named is read, whatever it is called"
    assert texts_in(["docs", "a.txt"]).bytes == len("alpha\nbeta\ngamma = 1\n")


def test_what_is_no_file_in_a_folder_is_left_alone(place: Path) -> None:
    before = texts_in([str(place)]).files
    os.mkfifo(place / "pipe.txt")
    (place / "self.txt").symlink_to("self.txt")
    (place / "broken.txt").symlink_to("nothing")
    assert texts_in([str(place)]).files == before


def test_neither_order_nor_repetition_matters(place: Path) -> None:
    one = texts_in(["docs", "a.txt"])
    other = texts_in(["*.txt", "docs/b.md", str(place / "a.txt"), "./docs", "docs/**/*.py"])
    assert list(one) == list(other) == ["alpha\n", "beta\n", "gamma = 1\n"]
    assert one.fingerprint == other.fingerprint != texts_in(["docs"]).fingerprint


def test_the_texts_may_be_read_again_and_again(place: Path) -> None:
    texts = texts_in(["docs"])
    assert [(a, b) for a in texts for b in texts] == [(a, b) for a in list(texts) for b in list(texts)]


def test_records_give_their_texts(tmp_path: Path) -> None:
    records = [
        {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]},
        {"prompt": "", "completion": "two"},
        {"text": "three\nlines\n"},
    ]
    for number, record in enumerate(records):
        (tmp_path / f"{number}.jsonl").write_text(f"\ufeff{json.dumps(record)}\n\n")
    texts = texts_in([str(tmp_path / "*.jsonl")])
    assert list(texts) == ["hi", "ho", "two", "three\nlines\n"] and texts.bytes == 4 + 3 + 12


def test_reasoning_calls_and_tools_are_texts_to_learn_from_and_ids_are_not(tmp_path: Path) -> None:
    call = {"id": "c1", "function": {"name": "add", "arguments": {"n": "seven"}}}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ho", "reasoning": "hm", "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ]
    record = {"messages": turns, "tools": [{"type": "function", "function": {"description": "Adds."}}]}
    (tmp_path / "records.jsonl").write_text(json.dumps(record))
    assert list(texts_in([str(tmp_path / "records.jsonl")])) == ["hi", "ho", "hm", "add", "seven", "3", "Adds."]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a.tx", "a.tx: no such file or folder\nDid you mean 'a.txt'?"),
        ("nowhere/a.txt", "nowhere/a.txt: no such file or folder"),
        ("docs/*.rst", "docs/*.rst: no file matches\n** stands for any folders"),
        ("bare", "bare: there is no text file in the folder\nOther files are read where a pattern names them: 'bare/"),
        ("docs/empty.txt", "docs/empty.txt: there is no text in it"),
        ("x" * 300, "can't be read"),
        ("a\0b", "'a\\x00b': no such file or folder"),
        ("/dev/null", "/dev/null: no regular file; texts are read more than once"),
        ("", "a path of texts is empty"),
    ],
)
def test_what_can_not_be_read_is_named(place: Path, pattern: str, message: str) -> None:
    (place / "bare").mkdir()
    assert message in refusal(pattern)
    assert refusal(pattern, where="recipe.yaml:3").startswith("recipe.yaml:3: ")


PATTERNS = (
    "docs/**/*.py",
    "**/*",
    "**",
    "*/*/../*.md",
    "**/**/c.*",
    "[!d]*",
    "*/.hidden/*",
    "**/deep/**/?.py",
    "./a.*",
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_match_as_those_of_python(place: Path, pattern: str) -> None:
    os.mkfifo(place / "docs" / "pipe.py")
    (place / "docs" / "linked.py").symlink_to(place / "docs" / "deep" / "c.py")
    (place / "broken.py").symlink_to("nothing")
    (place / "more").symlink_to("docs")
    for one in (pattern, str(place / pattern)):
        expected = {Path(name) for name in glob.glob(one, recursive=True) if Path(name).is_file()}  # noqa: PTH207
        assert files_matching(one) == sorted(expected) != []


def test_a_link_to_a_folder_above_is_gone_through_once(place: Path) -> None:
    for name in ("docs/up", "docs/deep/up", "up"):
        (place / name).symlink_to(place)
    found = files_matching("**/*.py")
    assert {path.name for path in found} == {"c.py"}
    assert len(found) < 10
    assert names(texts_in(["**/*.py"])) == ["c.py"]


@pytest.mark.parametrize("pattern", ["[" * 4096, "*" + "[!" * 2000, "[" * 500_000, "*/" * 500_000])
def test_a_pattern_of_any_length_ends_soon(place: Path, pattern: str) -> None:
    begun = time.process_time()
    with suppress(DataError):
        assert files_matching(pattern) == []
    assert time.process_time() - begun < 3


@pytest.mark.parametrize("pattern", [".", "**/*.md", "runs/../**/*.md"])
def test_what_runs_and_exports_have_written_is_no_data_of_the_next(place: Path, pattern: str) -> None:
    """A second run trained on the model cards of the first, and `--resume` found other records than before."""
    run = place / "runs" / "first"
    export, elsewhere = run / "exports" / "peft", place / "exported"
    for folder in (export, elsewhere):
        folder.mkdir(parents=True)
        (folder / "README.md").write_text("a model card\n")
        (folder / "graftkit.json").write_text('{\n  "graftkit": "0.1.0"\n}\n')
    RunManifest(graftkit="0.1.0", status="finished").write(run)
    (run / "report.md").write_text("a report\n")

    def names_of(pattern: str) -> list[str]:
        return [path.name for path in find_data_files(pattern, lambda path: path.suffix == ".md")]

    assert names_of(pattern) == ["b.md"]
    assert {path.parent.name for path in find_text_files([pattern])}.isdisjoint({"peft", "exported", "first"})
    assert [Path(path).name for path in own_folders(pattern)] == ["exported", "first"]
    assert names_of("runs/first/**/*.md") == ["report.md"]
    for nothing in ("runs", "runs/**/*.md"):
        for find in (names_of, lambda nothing: find_text_files([nothing])):
            with pytest.raises(DataError) as caught:
                find(nothing)
            assert f"wrote {Path('runs/first')}: name that folder" in caught.value.hint
    assert names_of("runs/*/exports/*/*.md") == ["README.md"]


@pytest.mark.parametrize("pattern", ["docs", "**/*.md", "*/*"])
def test_a_search_has_an_end(place: Path, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern such as /**/*.jsonl went through the whole machine."""
    monkeypatch.setattr("graftkit.corpus.file_search.MOST_VISITED", 3)
    for search in (lambda: texts_in([pattern]), lambda: find_data_files(pattern, lambda path: True, "recipe.yaml:2")):
        with pytest.raises(
            DataError, match=r"over 3 files and folders were looked at, of which \d are .* asked for"
        ) as caught:
            search()
        assert caught.value.where.endswith(pattern)
    monkeypatch.setattr("graftkit.corpus.file_search.MOST_VISITED", 100)
    monkeypatch.setattr("graftkit.corpus.file_search.MOST_FOUND", 0)
    assert "over 0 files are found" in refusal(pattern)


def test_no_file_at_all_is_told() -> None:
    assert refusal(where="tokenizer.extend.corpus").startswith("tokenizer.extend.corpus: no file is named")


def test_a_file_that_is_not_utf8_is_named_with_its_line(place: Path) -> None:
    (place / "latin.txt").write_bytes(b"fine\n" * 100_000 + b"h\xf6\n")
    assert "latin.txt:100001: not UTF-8: byte 0xf6 at position 1" in refusal("*.txt")
    (place / "cut.txt").write_bytes("ö".encode()[:1])
    assert "cut.txt:1: not UTF-8" in refusal("cut.txt")


@pytest.mark.parametrize("form", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["The quick brown fox jumps over it.\n", "Съешь же ещё этих мягких булок\n"])
def test_wide_characters_without_a_mark_are_no_text(place: Path, form: str, text: str) -> None:
    """It is UTF-8, too, with a NUL in each letter, and was learnt so."""
    (place / "wide.txt").write_bytes((2 * text).encode(form))
    named = form.upper().replace("-LE", "LE").replace("-BE", "BE")
    assert f"it is {named} without a byte order mark" in refusal("wide.txt")
    with pytest.raises(DataError, match="without a byte order mark"):
        RecordSource(place / "wide.txt").read_text()


def test_a_line_that_is_no_record_is_named(place: Path) -> None:
    (place / "records.jsonl").write_text('{"text": "x"}\n{"txet": "x"}\n')
    assert 'records.jsonl:2: "text" is missing or null' in refusal("records.jsonl")


LINES = st.lists(st.text(st.sampled_from("aé漢🎉 \t\r\n"), max_size=30), max_size=200).map("\n".join)


@given(text=LINES, size=st.integers(8, 200))
@settings(max_examples=200)
def test_stretches_are_the_text_and_moderate(tmp_path_factory: pytest.TempPathFactory, text: str, size: int) -> None:
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_bytes(text.encode())
    found = list(read_stretches(RecordSource(path), size))
    assert "".join(found) == text and all(found)
    assert all(len(stretch) <= 4 * size for stretch in found)
    assert len(text.encode()) > size or len(found) <= 1


def test_a_large_file_is_cut_between_lines(tmp_path: Path) -> None:
    path = tmp_path / "large.txt"
    path.write_text("".join(f"line {n}\n\n  indented {n}\n" for n in range(60_000)))
    found = list(read_stretches(RecordSource(path)))
    assert len(found) > 4 and all(STRETCH / 4 <= len(stretch) <= 4 * STRETCH for stretch in found[:-1])
    for before, after in pairwise(found):
        assert before[-1] == "\n" and not before[-2].isspace() and not after[0].isspace()


@pytest.mark.parametrize("size", [300, 1000, 5000])
def test_a_cut_changes_no_word_that_a_tokenizer_sees(tmp_path: Path, size: int) -> None:
    from tokenizers.pre_tokenizers import ByteLevel

    draw = random.Random(size)
    path = tmp_path / "any.txt"
    path.write_text(
        "".join(draw.choice(["word", " x", " ", "  ", "\n", "\n\n", "\t", "é", " 漢"]) for _ in range(9000))
    )
    words = ByteLevel(add_prefix_space=False).pre_tokenize_str
    found = list(read_stretches(RecordSource(path), size))
    whole = [word for word, _ in words("".join(found))]
    assert len(found) > 2 and [word for stretch in found for word, _ in words(stretch)] == whole


def test_whole_files_are_held_out(tmp_path: Path) -> None:
    for n in range(40):
        (tmp_path / f"{n}.txt").write_text(f"text {n}\n" * 10)
    (tmp_path / "copy.txt").write_text((tmp_path / "7.txt").read_text())
    texts = texts_in([str(tmp_path)])
    for seed in range(8):
        learn, judge = split_by_file(texts, 0.2, seed)
        assert {*learn.files, *judge.files} == set(texts.files) and not {*learn.files} & {*judge.files}
        assert 0.1 * texts.bytes < judge.bytes <= 0.2 * texts.bytes + 1 and learn.bytes + judge.bytes == texts.bytes
        assert not set(learn) & set(judge), "equal files are on one side"
        assert list(judge) == list(split_by_file(texts, 0.2, seed)[1])
    assert {*split_by_file(texts, 0.2, 0)[1].files} != {*split_by_file(texts, 0.2, 1)[1].files}


@pytest.mark.parametrize("name", ["one.txt", "one.jsonl"])
def test_of_a_single_file_stretches_are_held_out(tmp_path: Path, name: str) -> None:
    lines = [f"line {n} of the text\n" for n in range(2000)]
    path = tmp_path / name
    path.write_text("".join(lines) if name.endswith("txt") else "".join(f"{json.dumps({'text': t})}\n" for t in lines))
    texts = texts_in([str(path)])
    learn, judge = split_by_file(texts, 0.1)
    found = [line for side in (learn, judge) for stretch in side for line in stretch.splitlines(keepends=True)]
    assert sorted(found) == sorted(lines)
    assert sum(len(stretch) for stretch in judge) == judge.bytes and 0.05 < judge.bytes / texts.bytes <= 0.1
    assert learn.fingerprint != judge.fingerprint != texts.fingerprint


def test_too_little_to_hold_anything_out_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("short")
    with pytest.raises(DataError, match="too little text to hold some of it out"):
        split_by_file(texts_in([str(tmp_path)]), 0.1)
