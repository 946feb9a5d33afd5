"""Files are read by the reader and the format that fit them, and errors name the file, the columns and the plugin."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from graftkit import Provider, Record, RecordSource, Text, hookimpl, load_recipe
from graftkit.corpus.dataset import Dataset
from graftkit.errors import DataError, GraftkitError, PluginCallError
from graftkit.flow.planning.plan_notices import told_of_files
from graftkit.flow.records.datasets import open_datasets, open_path
from graftkit.flow.records.left_out import unread_columns
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.testing import isolated_host

CHAT = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}


def write(folder: Path, name: str, *records: Any) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def opened(*files: Any, host: Any = None, key: str = "train") -> list[Dataset]:
    known = host or isolated_host()
    recipe = load_recipe({"model": "./m", "data": {"train": list(files)}})
    return open_datasets(bind(recipe, known), known, key)


def bound_to(*files: Any) -> BoundRecipe:
    return bind(load_recipe({"model": "./m", "data": {"train": list(files)}}), isolated_host())


def refusal(*files: Any, host: Any = None) -> str:
    with pytest.raises(GraftkitError) as caught:
        for dataset in opened(*files, host=host):
            list(dataset)
    return str(caught.value)


def test_a_folder_gives_its_files_of_records_and_no_descriptions(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    write(tmp_path, "b.jsonl", CHAT)
    write(tmp_path, "deep/a.jsonl", {"text": "x"})
    (tmp_path / "deep/c.csv.gz").write_bytes(gzip.compress(b"question,answer\na,b\n"))
    for name in ("README.md", "dataset_info.json", ".hidden.jsonl", "weights.bin"):
        (tmp_path / name).write_text("{}")
    found = open_path(isolated_host(), str(tmp_path))
    assert [dataset.source.path.name for dataset in found] == ["b.jsonl", "a.jsonl", "c.csv.gz"]
    assert [dataset.format_name for dataset in found] == ["messages", "text", "question-answer"]
    assert [dataset.reader_name for dataset in found] == ["jsonl", "jsonl", "csv"]


def test_a_pattern_gives_its_matches_and_an_empty_one_is_an_error(tmp_path: Path) -> None:
    for name in ("a1.jsonl", "a2.jsonl", "b.jsonl"):
        write(tmp_path, name, CHAT)
    assert len(opened(str(tmp_path / "a*.jsonl"))) == 2
    assert "no file matches" in refusal(str(tmp_path / "c*.jsonl"))
    assert "write hub:tatsu-lab/alpaca." in refusal(str(tmp_path / "tatsu-lab" / "alpaca"))
    (tmp_path / "bare").mkdir()
    assert "there is no file of records in the folder" in refusal(str(tmp_path / "bare"))


def test_the_first_records_of_a_folder_are_those_of_its_files_in_their_order(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write(tmp_path, f"{name}.jsonl", *({"text": f"{name}{number}"} for number in range(3)))
    for most, files in ((2, 1), (3, 1), (5, 2), (9, 3), (20, 3)):
        found = opened({"path": str(tmp_path), "first": most})
        texts = [sample.text for dataset in found for sample in dataset if isinstance(sample, Text)]
        assert texts == [f"{name}{number}" for name in "abc" for number in range(3)][:most]
        assert len(found) == files and sum(dataset.count() for dataset in found) == len(texts)
        assert [1 for dataset in found for sample in dataset.after(iter([True] * 9)) if sample] == [1] * len(texts)
        told = told_of_files(bound_to({"path": str(tmp_path), "first": most}), found)
        assert told == (
            [f"{tmp_path}/c.jsonl: 'first' asks for 14 records of it, and it has 3: all are read"] * (most > 9)
        )


@pytest.mark.parametrize(
    ("record", "meant"),
    [
        ({"text": "a", "text_pairs": "b", "label": "c"}, "label, columns: {text_pair: text_pairs}"),
        ({"instrucion": "do", "input": "x", "output": "y"}, "alpaca, columns: {instruction: instrucion}"),
        ({"prompt": "p", "completion": "c", "lable": False}, "preference, columns: {label: lable}"),
        ({"text": "t", "labels": "a"}, "label, columns: {label: labels}"),
    ],
)
def test_a_column_that_is_left_out_for_a_typing_error_is_refused(
    tmp_path: Path, record: dict[str, Any], meant: str
) -> None:
    """Another format fits without it: what is learnt would be something else."""
    path = write(tmp_path, "a.jsonl", record)
    name = meant.rpartition(" ")[2].rstrip("}")
    found = refusal(str(path))
    assert f"'{name}' would be read" in found and f"format: {meant}}}" in found and f"unused: [{name}]" in found
    [dataset] = opened({"path": str(path), "unused": [name]})
    assert len([*dataset]) == 1


def test_columns_are_mapped_and_those_that_nobody_reads_are_kept_in_mind(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", {"ask": "a", "reply": "b", "id": 3}, {"ask": "a", "reply": "b", "more": 4})
    columns = {"question": "ask", "answer": "reply"}
    [dataset] = opened({"path": str(path), "columns": columns})
    assert [sample.where for sample in dataset] == [f"{path}:1", f"{path}:2"]
    assert (dataset.format_name, dataset.left) == ("question-answer", {"id": f"{path}:1", "more": f"{path}:2"})
    assert dataset.facts()["columns"] == columns
    assert unread_columns(["id", "lable", "anwser"], ["text", "answer"]) == "id, lable (is 'label' meant?), anwser"
    long = unread_columns(["x" * 5_000_000, *map(str, range(9_000))], ["text"])
    assert long.startswith("x" * 97 + "..., 0, 1, ") and long.endswith(", 38 and 8,961 more")
    found = refusal({"path": str(path), "columns": columns, "unused": ["id"]})
    assert f"{path}:2: the column 'more' is not read as question-answer" in found and "unused: [id, more]" in found
    assert "columns names 'nowhere'" in refusal({"path": str(path), "columns": {"question": "nowhere"}})


def test_a_column_that_only_later_records_have_is_read_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", *[CHAT] * 120, {**CHAT, "system": "short"})
    [dataset] = opened(str(path))
    last = list(dataset)[-1]
    assert last.key()[0] == ["system", "short"] and dataset.left == {}
    whole = {key: [*CHAT["messages"][:1], {"role": "assistant", "content": key}] for key in ("chosen", "rejected")}
    [dataset] = opened(str(write(tmp_path, "b.jsonl", {**whole, "system": "short"})))
    [pair] = dataset
    assert pair.chosen.messages[0].content == "short" and dataset.left == {}


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"premise": "a", "hypotesis": "b", "label": "c"}],
            "Where 'hypotesis' is meant as hypothesis, write: {path: ",
        ),
        ([{"a": 1, "b": "x"}], "no format fits the first records: a (number), b (string)"),
        ([{"messages": [1]}], "messages (list of numbers)"),
        ([{**CHAT, "text": "x"}], "could be read as messages (of messages); text (of text)"),
        ([{**CHAT, "text": "x"}], "Say which: {path: a.jsonl, format: messages} or {path: a.jsonl, format: text}."),
        ([{"links": ["a", "b"], "source": "x"}], "Make a text of each of the two"),
        ([{"paper": {"title": "a", "body": "b"}}], "or write what reads such records: toolkit plugin new NAME --kind"),
        (
            [{"chosen": "a b", "rejected": "a c"}],
            "Put what stands before both answers into a column of its own, prompt.",
        ),
        ([CHAT, {"text": "x"}], ":2: this record is of the format text"),
        ([CHAT, [1]], ":2: the record is a list, no object"),
        ([], "there is no record in it"),
    ],
)
def test_what_does_not_fit_is_told_with_its_columns(tmp_path: Path, records: list[Any], message: str) -> None:
    path = write(tmp_path, "a.jsonl", *records)
    found = refusal(str(path))
    assert found.startswith(str(path)) and message in found


@pytest.mark.parametrize("context", ["context", "passage"])
def test_what_a_question_is_about_is_not_left_out_unasked(tmp_path: Path, context: str) -> None:
    path = write(tmp_path, "a.jsonl", {"id": "7", "question": "Who?", context: "Ada left.", "answer": "Ada"})
    found = refusal(str(path))
    assert f"'{context}' beside 'question' and 'answer' would not be read" in found
    entry = {"format": "alpaca", "columns": {"instruction": "question", "input": context, "output": "answer"}}
    shown = f"columns: {{instruction: question, input: {context}, output: answer}}" if context == "passage" else ""
    assert f"{{path: a.jsonl, format: alpaca, {shown}" in found and f"unused: [id, {context}]" in found
    [dataset] = opened({"path": str(path), **entry})
    assert next(iter(dataset)).messages[0].content == "Who?\n\nAda left."
    [dataset] = opened({"path": str(path), "unused": ["id", context]})
    assert next(iter(dataset)).messages[0].content == "Who?"
    renamed = write(tmp_path, "b.jsonl", {"q": "Who?", context: "Ada left.", "answer": "Ada"})
    found = refusal({"path": str(renamed), "columns": {"question": "q"}})
    assert "columns: {instruction: q, " in found
    assert f"{{path: b.jsonl, columns: {{question: q}}, unused: [{context}]}}" in found


def test_columns_that_a_recipe_names_stay_named_where_another_is_left_out(tmp_path: Path) -> None:
    """What is offered is written in the place of all that the recipe said of the file."""
    path = write(tmp_path, "a.jsonl", *({"review": f"Text {one}.", "label_coarse": "good"} for one in range(3)))
    entry = {"path": str(path), "columns": {"text": "review"}}
    found = refusal(entry)
    assert "'label_coarse' beside 'text' would not be read" in found
    assert "{path: a.jsonl, format: label, columns: {text: review, label: label_coarse}}" in found
    assert "{path: a.jsonl, columns: {text: review}, unused: [label_coarse]}" in found
    [dataset] = opened({**entry, "format": "label", "columns": {"text": "review", "label": "label_coarse"}})
    assert len(list(dataset)) == 3
    [dataset] = opened({**entry, "unused": ["label_coarse"]})
    assert [sample.text for sample in dataset] == ["Text 0.", "Text 1.", "Text 2."]


def test_a_format_that_is_named_settles_what_several_fit(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", {**CHAT, "text": "x"})
    [dataset] = opened({"path": str(path), "format": "text"})
    assert list(dataset) == [Text("x", f"{path}:1")]
    assert "are not of the format alpaca: messages (list of objects" in refusal({"path": str(path), "format": "alpaca"})


def test_roles_of_a_recipe_go_before_those_that_are_known(tmp_path: Path) -> None:
    turns = [{"role": "judge", "content": "a"}, {"role": "model", "content": "b"}]
    path = write(tmp_path, "a.jsonl", {"messages": turns})
    [dataset] = opened({"path": str(path), "format": {"use": "messages", "roles": {"judge": "user"}}})
    assert [turn[0] for sample in dataset for turn in sample.key()] == ["user", "assistant"]


class Odd:
    """A reader of .odd files, and a format that takes everything, either of which may fail."""

    fails: Callable[[str], Any] = staticmethod(lambda where: None)  # type: ignore[assignment]

    def accepts(self, source: RecordSource) -> bool:
        return source.suffix == ".odd"

    def records(self, source: RecordSource) -> Iterator[Record]:
        Odd.fails("records")
        yield Record(":1", lambda: Odd.fails("load") or {"odd": "x"})

    def columns(self, found: Mapping[str, Any]) -> list[str] | None:
        return ["odd"] if "odd" in found else None

    def sample(self, record: Mapping[str, Any], where: str) -> Text:
        Odd.fails("sample")
        return Text("x", where)

    @hookimpl
    def graftkit_readers(self) -> list[Provider]:
        return [Provider(name="odd", target=f"{__name__}:Odd")]

    @hookimpl
    def graftkit_formats(self) -> list[Provider]:
        return [Provider(name="odd", target=f"{__name__}:Odd")]


@pytest.mark.parametrize("place", ["records", "load", "sample"])
def test_another_error_of_a_plugin_names_it_and_the_place(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, __name__, SimpleNamespace(Odd=Odd))
    (tmp_path / "a.odd").write_text("")
    host = isolated_host(Odd())
    assert [list(dataset) for dataset in opened(str(tmp_path / "a.odd"), host=host)] == [
        [Text("x", f"{tmp_path / 'a.odd'}:1")]
    ]

    def fail(where: str) -> None:
        if where == place:
            raise KeyError("oops")

    monkeypatch.setattr(Odd, "fails", staticmethod(fail))
    with pytest.raises(PluginCallError) as caught:
        [list(dataset) for dataset in opened(str(tmp_path / "a.odd"), host=host)]
    kind = "format" if place == "sample" else "reader"
    assert f"{kind} 'odd' raised KeyError: 'oops', at {tmp_path / 'a.odd'}" in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_error_of_graftkits_own_passes_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", CHAT, {"messages": []})
    with pytest.raises(DataError, match="is an empty list"):
        [list(dataset) for dataset in opened(str(path))]


def test_first_records_of_several_files_are_counted_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file once to tell which hold them, and once to read them: what is told of fewer is known by then."""
    for name in ("a.jsonl", "b.jsonl"):
        write(tmp_path, name, {"text": "x"}, {"text": "y"})
    read: list[str] = []
    records = Dataset._records

    def noted(self: Dataset) -> Iterator[Record]:
        read.append(self.source.path.name)
        return records(self)

    monkeypatch.setattr(Dataset, "_records", noted)
    entry = {"path": str(tmp_path), "first": 9}
    datasets = opened(entry)
    assert read == ["a.jsonl", "b.jsonl"]
    assert sum(len(list(dataset)) for dataset in datasets) == 4
    told = told_of_files(bound_to(entry), datasets)
    assert any("'first' asks for 7 records of it, and it has 2: all are read" in notice for notice in told), told
    assert read == ["a.jsonl", "b.jsonl"] * 2
