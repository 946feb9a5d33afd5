"""Records are read as they are written, or refused with file and line: nothing is skipped, nothing is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graftkit.corpus.sample_files import scan_samples
from graftkit.corpus.text_targets import is_pair
from graftkit.errors import DataError, PluginError, UnknownFormatError
from graftkit.flow.records.datasets import open_path
from graftkit.host import registry
from graftkit.host.host import PluginHost
from graftkit.interfaces.samples import (
    ROLES,
    Completion,
    Conversation,
    LabelledAnswer,
    LabelledText,
    Message,
    PreferencePair,
    Sample,
    ScoredText,
    TaggedText,
    Text,
    TextWithLabels,
    Tokens,
    ToolCall,
    tagged_words,
)
from graftkit.testing.records import open_files, read_samples
from hypothesis import given
from hypothesis import strategies as st

CHAT = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}'
TEXT = '{"text": "hello"}'
ENTITY = {"start": 0, "end": 1, "label": "A"}


def records(tmp_path: Path, content: str | bytes, name: str = "records.jsonl") -> list[Sample]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_samples(path)


def refusal(tmp_path: Path, content: str | bytes, name: str = "records.jsonl") -> str:
    with pytest.raises(DataError) as caught:
        records(tmp_path, content, name)
    assert caught.value.exit_code == 2
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_every_shape_of_record_is_read_with_its_place(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert records(tmp_path, f"{CHAT}\n") == [
        Conversation((Message("user", "hi"), Message("assistant", "ho")), f"{path}:1")
    ]
    assert records(tmp_path, f"{TEXT}\n") == [Text("hello", f"{path}:1")]
    assert records(tmp_path, '{"prompt": "1+1=", "completion": "2"}\n{"prompt": "", "completion": " x "}\n') == [
        Completion("1+1=", "2", f"{path}:1"),
        Completion("", " x ", f"{path}:2"),
    ]


def test_every_role_is_known(tmp_path: Path) -> None:
    turns = [{"role": role, "content": role} for role in ROLES]
    [record] = records(tmp_path, json.dumps({"messages": turns}))
    assert isinstance(record, Conversation) and [message.role for message in record.messages] == list(ROLES)


@pytest.mark.parametrize("name", ["book.txt", "book.md"])
def test_a_text_file_is_one_record(tmp_path: Path, name: str) -> None:
    assert records(tmp_path, "One.\n\nTwo.\n", name) == [Text("One.\n\nTwo.\n", str(tmp_path / name))]


@pytest.mark.parametrize(
    "content", [f"\ufeff{TEXT}\n", f"{TEXT}\r\n", f"\n  \n{TEXT}\n\n\r\n", TEXT, f"  {TEXT}\t\n"], ids=repr
)
def test_byte_order_mark_line_ends_and_blank_lines_do_no_harm(tmp_path: Path, content: str) -> None:
    [record] = records(tmp_path, content)
    assert isinstance(record, Text) and record.text == "hello"


def test_blank_lines_count_in_the_place_of_a_record(tmp_path: Path) -> None:
    [record] = records(tmp_path, f"\n\n{TEXT}\n")
    assert record.where.endswith("records.jsonl:3")


def test_line_separators_inside_a_string_end_no_line(tmp_path: Path) -> None:
    [record] = records(tmp_path, '{"text": "a\u2028b\u0085c"}\n')
    assert isinstance(record, Text) and record.text == "a\u2028b\u0085c"


def test_a_text_file_loses_only_its_byte_order_mark(tmp_path: Path) -> None:
    [record] = records(tmp_path, "\ufeffa\r\nb", "book.txt")
    assert isinstance(record, Text) and record.text == "a\r\nb"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "no JSON: Expecting property name"),
        ("hello", "no JSON: Expecting value at column 1"),
        (f"{TEXT} {TEXT}", "no JSON: Extra data at column 19"),
        ('{"text": NaN}', "no JSON: NaN is no JSON number"),
        ('{"text": -Infinity}', "no JSON: -Infinity is no JSON number"),
        ('{"text": "a", "text": "b"}', "no JSON: a key stands in it twice"),
        ('{"text": ' + "9" * 5000 + "}", "no JSON: a number too long to read"),
        ("[" * 100_000, "no JSON: "),
        ("[]", "the record is a list, no object\nA record is "),
        ('"text"', "the record is a string, no object"),
        ("null", "the record is null, no object"),
        ("3.5", "the record is a number, no object"),
        ("{}", '"text" is missing or null\nThe file is read as text, as its first records are.'),
        ('{"prompt": "x"}', '"text" is missing or null'),
        ('{"prompt": "x", "completion": "y"}', "this record is of the format prompt-completion, the one at"),
        ('{"text": 3}', '"text" is a number, no string'),
        ('{"text": true}', '"text" is a boolean, no string'),
        ('{"text": " \\n"}', '"text" is empty: there is nothing to learn'),
        ('{"text": "\\ud800"}', '"text" holds half of a surrogate pair, which is no text'),
    ],
)
def test_a_line_that_is_no_record_is_refused_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    assert refusal(tmp_path, f"{TEXT}\n{line}\n{TEXT}\n").startswith(f"records.jsonl:2: {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": null, "completion": "x"}', '"prompt" is missing or null'),
        ('{"prompt": "x", "completion": ""}', '"completion" is empty: there is nothing to learn'),
        ('{"prompt": "x", "completion": 3}', '"completion" is a number, no string'),
        ('{"text": "x"}', "this record is of the format text"),
    ],
)
def test_a_line_that_is_no_completion_is_refused_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    good = '{"prompt": "x", "completion": "y"}'
    assert refusal(tmp_path, f"{good}\n{line}\n").startswith(f"records.jsonl:2: {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"messages": "x"}', '"messages" is a string, no list of turns'),
        ('{"messages": "[x"}', '"messages" is text, but no JSON'),
        ('{"messages": []}', '"messages" is an empty list, no list of turns'),
        ('{"messages": ["x"]}', 'message 1: a message has "role" and "content"'),
        ('{"messages": [{}]}', 'message 1: a message has "role" and "content"'),
        ('{"messages": [{"role": "user"}]}', 'message 1: "content" is missing or null'),
        (CHAT.replace("assistant", "narrator"), "message 2: role 'narrator' is none of system, user, assistant, tool"),
        (CHAT.replace('"user"', "[]"), "message 1: role [] is none of system, user, assistant, tool"),
        (CHAT.replace('"ho"', "null"), 'message 2: "content" is missing or null'),
        (CHAT.replace('"ho"', "3"), 'message 2: "content" is a number, no string'),
        (CHAT.replace('"hi"', '"\\udfff"'), 'message 1: "content" holds half of a surrogate pair'),
        (CHAT.replace('"hi"', '[{"type": "image"}]'), 'message 1: "content" has a part of the type "image"'),
        (
            CHAT.replace('"hi"', '[{"text": "hi", "image_url": {"url": "x"}}]'),
            'message 1: "content" has a part with image_url beside its text, which is not read',
        ),
        (
            CHAT.replace('"ho"', '[{"type": "thinking", "thinking": "a", "text": "b"}, {"text": "ho"}]'),
            "a part with text beside its thinking",
        ),
        (
            CHAT.replace('"ho"', '[{"text": "h"}, {"type": "thinking", "thinking": "a"}, {"text": "o"}]'),
            "a part that is thinking after one of text",
        ),
        (
            CHAT.replace('"ho"', '"", "tool_calls": [{"id": 5, "function": {"name": "f"}}]'),
            'message 2: call 1: "id" is a number, no string',
        ),
        (
            CHAT.replace('"ho"', '"", "tool_calls": [{"name": "g", "function": {"name": "f"}}]'),
            'message 2: call 1: a call says "name" twice, and not the same',
        ),
        (
            CHAT.replace('"ho"', '"", "tool_calls": [{"id": "a", "function": {"name": "f", "id": "b"}}]'),
            'a call says "id" twice',
        ),
        (
            CHAT.replace('"ho"', r'"", "tool_calls": [{"name": "f", "arguments": "{\"a\": 1, \"a\": 2}"}]'),
            'message 2: call 1: "arguments" is text of an object in which a key stands twice',
        ),
        (CHAT.replace('"ho"', '"ho", "mood": "glad"'), "tool_call_id; found role, content, mood"),
        (CHAT.replace('"ho"', 'null, "tool_calls": [{}]'), 'message 2: call 1: a call has a "function" with "name"'),
        (CHAT.replace('"ho"', '"ho", "tool_calls": [{"name": "f", "parameters": {}}]'), "found parameters, too"),
        (CHAT.replace('"ho"', '"ho", "tool_calls": "[{\\"name\\": NaN}]"'), "NaN is no JSON number"),
        (CHAT[:-1] + ', "system": "a", "system_prompt": "b"}', "system and system_prompt, which mean the same"),
        (CHAT.replace('"ho"', '"ho", "tool_calls": 3'), 'message 2: "tool_calls" is a number, no list'),
        (
            CHAT.replace('"ho"', '"ho", "reasoning": "a", "thinking": "b"'),
            "reasoning and thinking, which mean the same",
        ),
        (CHAT[:-1] + ', "tools": 3}', '"tools" is no list of objects'),
        (CHAT.replace('"ho"', '"ho", "weight": 1001'), 'message 2: "weight" is a number from 0 to 1,000, or "train"'),
        (CHAT.replace('"ho"', '"ho", "weight": -1'), 'message 2: "weight" is a number from 0 to 1,000, or "train"'),
        (CHAT.replace("assistant", "tool"), "no turn of the assistant: there is nothing to learn"),
        (CHAT.replace('"ho"', '""'), "the answer is empty: there is nothing to learn"),
        (CHAT.replace('"ho"', '"ho", "weight": 0'), "every message has the weight 0: there is nothing to learn"),
    ],
)
def test_a_line_that_is_no_conversation_is_refused_with_its_place(tmp_path: Path, line: str, message: str) -> None:
    found = refusal(tmp_path, f"{CHAT}\n{line}\n")
    assert found.startswith("records.jsonl:2: ") and message in found


@pytest.mark.parametrize("end", ["b\n" + "\0" * 8, "b\0\0\0d\n", "b\n\x1a"])
def test_a_table_with_a_hole_in_it_is_refused_with_the_line(tmp_path: Path, end: str) -> None:
    """A computer that stops while a file is written leaves zeros in the place of rows."""
    number = 3 if "d" in end else 4
    assert f"records.csv:{number}: the line holds" in refusal(tmp_path, f"text\na\n{end}", "records.csv")


def test_a_line_that_is_not_utf8_is_refused_with_its_place(tmp_path: Path) -> None:
    found = refusal(tmp_path, TEXT.encode() + b'\n{"text": "h\xf6"}\n')
    assert found.startswith("records.jsonl:2: not UTF-8: byte 0xf6 at position 11\nSave the file as UTF-8")
    assert refusal(tmp_path, b"a\nb\n\xff", "book.txt").startswith("book.txt:3: not UTF-8: byte 0xff at position 0")


@pytest.mark.parametrize("content", ["", "\n\n", "\ufeff", " \r\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    assert refusal(tmp_path, content) == "records.jsonl: there is no record in it"
    assert refusal(tmp_path, content, "book.txt") == "book.txt: the file is empty"


def test_a_file_that_is_not_there_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_samples(tmp_path / "records.jsonl")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "records.jsonl").write_text(TEXT)
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="relative paths in a recipe start at its own folder"):
        read_samples(tmp_path / "records.jsonl")


@pytest.mark.parametrize(
    "name", ["a" * 300 + ".jsonl", "a" * 300, "a\0.jsonl", "a\0.txt", "folder.jsonl", "folder.txt"]
)
def test_a_path_that_can_be_no_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(DataError):
        read_samples(tmp_path / name)


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, TEXT, "records.exe").startswith(
        "records.exe: no reader knows files of this name\nRecords are read"
    )
    (tmp_path / "records.exe").unlink()
    with pytest.raises(DataError, match="no such file"):
        read_samples(tmp_path / "records.exe")


@pytest.mark.parametrize("name", ["a.parquet", "", "*.arrow"])
def test_a_file_whose_reader_needs_what_is_not_installed_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for file in ("a.parquet", "b.arrow", "c.jsonl"):
        (tmp_path / file).write_text(TEXT)
    monkeypatch.setattr(registry, "_installed", lambda module: module != "pyarrow")
    with pytest.raises(PluginError, match=r"needs pyarrow, which is not installed\npip install 'graftkit\[arrow\]'"):
        open_path(PluginHost(), str(tmp_path / name))


@given(st.binary(max_size=80) | st.text(max_size=40).map(lambda text: json.dumps({"text": text}).encode()))
def test_no_content_raises_anything_but_a_data_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    try:
        assert all(isinstance(record, Text) for record in read_samples(path))
    except DataError as error:
        assert str(path) in str(error)


def test_tools_calls_reasoning_and_names_are_read_in_each_of_their_forms(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    turns = [
        {"role": "user", "content": "1?", "name": "bob", "tool_calls": None},
        {"role": "assistant", "content": None, "tool_calls": [call], "reasoning_content": "hm"},
        {"role": "tool", "content": [{"type": "text", "text": "3"}], "tool_call_id": "c1"},
        {"role": "assistant", "function_call": {"name": "sub", "arguments": {"b": 2}}, "content": "so"},
    ]
    turns += [
        {"role": "user", "content": [{"type": "text", "text": "2?", "thinking": "", "cache_control": {"type": "x"}}]},
        {"role": "assistant", "tool_calls": [{"id": None, "function": {"name": "mul", "arguments": {}, "id": "c2"}}]},
    ]
    tools = [{"type": "function", "function": {"name": "add"}}]
    expected = Conversation(
        (
            Message("user", "1?", name="bob"),
            Message("assistant", "", reasoning="hm", tool_calls=(ToolCall("add", '{"a": 1}', "c1"),)),
            Message("tool", "3", tool_call_id="c1"),
            Message("assistant", "so", tool_calls=(ToolCall("sub", {"b": 2}),)),
            Message("user", "2?"),
            Message("assistant", "", tool_calls=(ToolCall("mul", {}, "c2"),)),
        ),
        f"{tmp_path / 'records.jsonl'}:1",
        tools=tuple(tools),
    )
    as_text = {"messages": json.dumps(turns), "tools": json.dumps(tools)}
    for record in ({"messages": turns, "tools": tools}, as_text, {"messages": turns, "tools": [json.dumps(tools[0])]}):
        assert records(tmp_path, json.dumps(record)) == [expected]


def test_ids_are_read_with_labels_or_a_mask(tmp_path: Path) -> None:
    place = f"{tmp_path / 'records.jsonl'}:1"
    for beside, weights in (
        ({"labels": [-100, 5, 6], "attention_mask": [1, 1, 1]}, (0.0, 1.0, 1.0)),
        ({"loss_mask": [0, 0, 1]}, (0.0, 0.0, 1.0)),
        ({}, (1.0, 1.0, 1.0)),
    ):
        assert records(tmp_path, json.dumps({"input_ids": [4, 5, 6], **beside})) == [Tokens((4, 5, 6), weights, place)]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"input_ids": [4, 5], "labels": [4]}, '"labels" has 1 values, "input_ids" 2'),
        ({"input_ids": [4, 5], "labels": [5, -100]}, "label 0 is 5, where the id is 4"),
        ({"input_ids": [4, 5], "labels": [-100, -100]}, "no token is learnt"),
        ({"input_ids": [4, 5], "attention_mask": [1, 0]}, "without padding"),
        ({"input_ids": [4, 5], "attention_mask": [1, 2]}, "without padding"),
        ({"input_ids": [4, 5], "loss_mask": [1, -100]}, '"loss_mask" has -100 at position 1'),
        ({"input_ids": [4, 5], "completion_mask": [2, 1]}, '"completion_mask" has 2 at position 0'),
        ({"input_ids": [4, 5], "assistant_masks": ["0", "1"]}, '"assistant_masks" is no list of whole numbers'),
        ({"input_ids": [4, 5.5]}, '"input_ids" is no list of whole numbers'),
        ({"text": "x", "label": 1}, "the label is the number 1, for which there is no word"),
        ({"text": "x", "label": True}, '"label" is a boolean, no text and no number'),
        ({"text": "x", "label": True}, "Write true and false as the words that they stand for"),
        ({"text": "x", "labels": ["a", "b", "a"]}, "the label 'a' stands there twice"),
        ({"text": "x", "labels": [0]}, "the label is the number 0, for which there is no word"),
        ({"text": "x", "labels": [""]}, 'one of "labels" is empty'),
        ({"text": " ", "labels": ["a"]}, '"text" is empty'),
        ({"text": "x", "text_pair": " ", "label": "a"}, '"text_pair" is empty'),
        ({"text": "x", "score": 1e19}, '"score" is 1e+19, no number from -1e+18 to 1e+18'),
        ({"text": "x", "score": 10**400}, "no number from -1e+18 to 1e+18"),
    ],
)
def test_ids_and_labels_that_are_none_are_refused(tmp_path: Path, record: dict[str, object], message: str) -> None:
    assert message in refusal(tmp_path, json.dumps(record))


def test_a_text_without_a_label_among_labelled_ones_is_refused(tmp_path: Path) -> None:
    told = refusal(tmp_path, '{"text": "x", "label": "a"}\n{"text": "y", "label": null}')
    assert 'records.jsonl:2: "label" is missing or null' in told
    assert "Leave records without a label out of the file" in told


def test_texts_are_read_with_labels_or_a_number(tmp_path: Path) -> None:
    place = f"{tmp_path / 'records.jsonl'}:1"
    for record, expected in (
        ({"text": "a", "labels": ["x", "y"]}, TextWithLabels("a", place, ("x", "y"))),
        ({"text": "a", "labels": []}, TextWithLabels("a", place, ())),
        ({"text": "a", "score": 2, "id": "7"}, ScoredText("a", place, 2.0)),
        ({"text": "a", "label": -0.5}, ScoredText("a", place, -0.5)),
        ({"text": "a", "label": "b", "score": 0.5}, "b"),
    ):
        [found] = records(tmp_path, json.dumps(record))
        assert found == expected or (isinstance(found, LabelledText) and found.label == expected)
    for names in (("text", "text_pair"), ("sentence1", "sentence2"), ("premise", "hypothesis")):
        pair = dict(zip(names, ("a", "b\n\nc"), strict=True))
        for target in ({"label": "x"}, {"labels": ["x"]}, {"score": 0.5}):
            [sample] = records(tmp_path, json.dumps(pair | target))
            assert isinstance(sample, LabelledText | TextWithLabels | ScoredText)
            assert sample.pair == ("a", "b\n\nc") and is_pair(sample)
            [joined] = records(tmp_path, json.dumps({"text": "a\n\nb\n\nc"} | target))
            assert isinstance(joined, type(sample)) and not is_pair(joined) and joined.key() != sample.key()
            whole = [one.messages[0].content if isinstance(one, LabelledText) else one.text for one in (sample, joined)]
            assert whole[0] == whole[1]
    [alone] = records(tmp_path, json.dumps({"text": "a", "premise": "b", "hypothesis": "c", "label": "x"}))
    assert isinstance(alone, LabelledText) and alone.text == "a" and not is_pair(alone)
    marks = {"text": "नमस्ते दिल्ली, ne\u0301e", "entities": [{"start": 7, "end": 13, "label": "LOC"}]}
    [signs] = records(tmp_path, json.dumps(marks))
    assert isinstance(signs, TaggedText) and signs.words == ("नमस्ते", "दिल्ली", ",", "ne\u0301e")
    assert signs.tags == ("O", "B-LOC", "O", "O"), "a vowel sign is no word"
    (tmp_path / "named.jsonl").write_text('{"text": "a", "label": 1.0}\n')
    said = {"format": {"use": "label", "names": ["n", "y"]}}
    [dataset] = open_path(PluginHost(), str(tmp_path / "named.jsonl"), said)
    assert [sample.label for sample in dataset if isinstance(sample, LabelledText)] == ["y"]
    (tmp_path / "named.csv").write_text("text,label\na,1\nb,0\nc,1.0\nd,y\n")
    [dataset] = open_path(PluginHost(), str(tmp_path / "named.csv"), said)
    assert [sample.label for sample in dataset if isinstance(sample, LabelledText)] == ["y", "n", "y", "y"]
    (tmp_path / "named.jsonl").write_text('{"text": "a", "label": 0.5}\n')
    with pytest.raises(DataError, match="no number of one of the 2 names"):
        [*open_path(PluginHost(), str(tmp_path / "named.jsonl"), said)[0]]
    (tmp_path / "records.jsonl").write_text('{"sentence1": "a", "sentence2": "b", "label": 2}')
    for words, known in ((["no", "yes"], "0 to 1"), (["no"], "0 alone")):
        [dataset] = open_path(
            PluginHost(), str(tmp_path / "records.jsonl"), {"format": {"use": "label", "names": words}}
        )
        with pytest.raises(DataError, match=f"the label is the number 2, and 'names' has a word for {known}"):
            list(dataset)
    (tmp_path / "records.csv").write_text("text,score\na,0.5\n")
    [dataset] = open_path(PluginHost(), str(tmp_path / "records.csv"), {"format": {"use": "score", "as_text": True}})
    assert [sample.score for sample in dataset if isinstance(sample, ScoredText)] == [0.5]
    first = '{"text": "a", "%s": %s}\n{"text": "b", "%s": %s}\n'
    for key, good, bad, told in (
        ("labels", '["x"]', "null", '"labels" is missing or null'),
        ("labels", '["x"]', '"x"', '"labels" is a string, no list'),
        ("labels", '["x"]', "[0.0, 1.0]", "A row of zeros and ones is written as the labels whose place"),
        ("labels", '["x"]', "[true]", 'one of "labels" is a boolean'),
        ("score", "0.5", "true", '"score" is a boolean, no number'),
        ("score", "0.5", "null", '"score" is missing or null'),
        ("score", "0.5", '"0.5"', '"score" is a string, no number'),
        ("score", "0.5", "NaN", "records.jsonl:2"),
    ):
        (tmp_path / "records.jsonl").write_text(first % (key, good, key, bad))
        with pytest.raises(DataError) as refused:
            read_samples(tmp_path / "records.jsonl")
        assert told in str(refused.value) and "records.jsonl:2" in str(refused.value)
        assert "format: text" in str(refused.value) or bad == "NaN"


@pytest.mark.parametrize(
    "answer",
    ["[" * 100_000, '[{"a":' * 100_000, '[{"role": ' + "[" * 300, '[{"name": "f"}]', '[{"role": "user"}, 1]', "[{"],
    ids=["lists", "objects", "a turn", "calls", "no turn among them", "no JSON"],
)
def test_an_answer_that_only_looks_like_turns_is_an_answer(tmp_path: Path, answer: str) -> None:
    [pair] = records(tmp_path, json.dumps({"prompt": "a", "chosen": answer, "rejected": "b"}))
    assert isinstance(pair, PreferencePair) and pair.chosen.messages[-1].content == answer


def not_read(tmp_path: Path, content: str) -> list[str]:
    path = tmp_path / "records.jsonl"
    path.write_text(content)
    [dataset] = open_files([path])
    assert len(list(dataset)) == 1
    return sorted(dataset.left)


def said(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in messages]


SYSTEM, ASKED, HO = {"role": "system", "content": "Be"}, {"role": "user", "content": "hi"}, "assistant"
WHOLE: dict[str, tuple[Any, list[Any], list[tuple[str, str]]]] = {
    "a system prompt before it": ("hi", [SYSTEM, ASKED], [("system", "Be"), ("user", "hi")]),
    "white space around it": ("hi \n", [ASKED], [("user", "hi")]),
    "the last of its questions": (
        "hi",
        [{"role": "user", "content": "a"}, {"role": HO, "content": "b"}, ASKED],
        [("user", "a"), (HO, "b"), ("user", "hi")],
    ),
    "a prompt that alone has the system prompt": ([SYSTEM, ASKED], [ASKED], [("system", "Be"), ("user", "hi")]),
    "a prompt that the assistant ends": (
        [ASKED, {"role": HO, "content": "b"}],
        [{"role": "user", "content": "c"}],
        [("user", "hi"), (HO, "b"), ("user", "c")],
    ),
}


@pytest.mark.parametrize("case", WHOLE)
def test_an_answer_that_is_the_whole_conversation_has_its_prompt_once(tmp_path: Path, case: str) -> None:
    prompt, before, expected = WHOLE[case]
    answers = {key: [*before, {"role": HO, "content": key}] for key in ("chosen", "rejected")}
    [pair] = records(tmp_path, json.dumps({"prompt": prompt, **answers}))
    assert isinstance(pair, PreferencePair) and said(pair.chosen.messages) == [*expected, (HO, "chosen")]
    assert [message.loss_weight for message in pair.chosen.messages][:-1] == [0] * len(expected)


@pytest.mark.parametrize("weights", [{"weight": 1}, {"train": True}, {"weight": 0.5}])
@pytest.mark.parametrize("whole", [True, False])
def test_only_the_answer_of_a_pair_is_in_the_loss(tmp_path: Path, weights: dict[str, Any], whole: bool) -> None:
    """Whatever the messages before it say of themselves; the answers, which are compared, count in full."""
    before = [{**ASKED, **weights}, {"role": HO, "content": "b", **weights}, ASKED]
    answers = {key: [*before * whole, {"role": HO, "content": key}] for key in ("chosen", "rejected")}
    [pair] = records(tmp_path, json.dumps({"prompt": before, **answers}))
    assert isinstance(pair, PreferencePair)
    for answer in (pair.chosen, pair.rejected):
        assert [message.loss_weight for message in answer.messages] == [0, 0, 0, 1]
    labelled = {"prompt": before, "completion": answers["chosen"], "label": True}
    [wanted] = records(tmp_path, json.dumps(labelled))
    assert isinstance(wanted, LabelledAnswer) and [m.loss_weight for m in wanted.answer.messages] == [0, 0, 0, 1]
    answers["rejected"][-1]["weight"] = 0.5
    assert 'records.jsonl:1: the answer in "rejected" has the weight 0.5' in refusal(
        tmp_path, json.dumps({"prompt": before, **answers})
    )


def test_an_answer_to_another_prompt_is_refused(tmp_path: Path) -> None:
    answers = {key: [ASKED, {"role": HO, "content": key}] for key in ("chosen", "rejected")}
    told = refusal(tmp_path, json.dumps({"prompt": "another", **answers}))
    assert "records.jsonl:1" in told and "the prompt is none of its messages" in told


@pytest.mark.parametrize("prompt", [[ASKED], json.dumps([ASKED])], ids=["messages", "text of messages"])
def test_an_input_beside_a_prompt_of_messages_is_not_dropped_in_silence(tmp_path: Path, prompt: Any) -> None:
    record = json.dumps({"prompt": prompt, "input": "context", "chosen": "a", "rejected": "b"})
    assert "to which of them it belongs is not known" in refusal(tmp_path, record)


def test_what_stands_beside_a_labelled_answer_is_read(tmp_path: Path) -> None:
    record = {"prompt": "a", "input": "b", "system": "Be", "completion": "c", "label": True}
    assert not_read(tmp_path, json.dumps(record)) == []
    [found] = records(tmp_path, json.dumps(record))
    assert isinstance(found, LabelledAnswer)
    assert said(found.answer.messages) == [("system", "Be"), ("user", "a\n\nb"), (HO, "c")]


@pytest.mark.parametrize(
    "beside", [{"output": "x", "instruction": "y"}, {"prompt": "y", "chosen": "x", "rejected": "z"}]
)
def test_an_input_that_is_a_number_is_refused_whichever(tmp_path: Path, beside: dict[str, str]) -> None:
    text = json.dumps({**beside, "input": "text"})
    assert '"input" is a number' in refusal(tmp_path, f"{text}\n{json.dumps({**beside, 'input': 0})}\n")


LISTED = '{"data": [\n{"text": "a"},\n{"text": "b"}]'


@pytest.mark.parametrize(
    ("after", "told"),
    [
        ('}\n[{"text": "lost"}]\n', "more stands after the array of 2 records"),
        (', "next": {"text": "}"}}\n{"text": "lost"}\n', "more stands after the array of 2 records"),
        (', "next": ["' + "x" * 3_000_000 + '"]', "the file ends in the middle of the object"),
        ("\n", "the file ends in the middle of the object"),
        (', "pad": "' + "x" * 1_048_400 + '", "more": [{"text": "c"}]}', "more than one list of records"),
    ],
    ids=["an array", "an object", "a long text", "its end is missing", "another list where the file is read on"],
)
def test_what_follows_a_list_of_records_in_an_object_is_not_lost(tmp_path: Path, after: str, told: str) -> None:
    assert told in refusal(tmp_path, LISTED + after, "rows.json")


@pytest.mark.parametrize("after", ["}", ', "n": {"a": [1, "]}", 2]}}\n', ', "text": "' + "x]}" * 700_000 + '"}'])
def test_an_object_around_a_list_of_records_may_hold_more(tmp_path: Path, after: str) -> None:
    assert len(records(tmp_path, LISTED + after, "rows.json")) == 2


@pytest.mark.parametrize("most", [1, 7, 30, 59, 60, None])
def test_of_many_records_some_are_checked_evenly_spread(tmp_path: Path, most: int | None) -> None:
    """The same ones are read again, under their numbers among all; those between are counted alone."""
    for name, count in (("a", 41), ("b", 19)):
        rows = [json.dumps({"text": f"{name}{number}"}) for number in range(count)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    files = open_files([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    every, some = scan_samples(files, 3), scan_samples(files, 3, most=most)
    assert len(some.kept) == 60 and list(some.sizes) == [41, 19]
    chosen = np.flatnonzero(some.kept)
    stride = 60 if most == 1 else int(chosen[1] - chosen[0])
    assert chosen.tolist() == list(range(0, 60, stride))
    assert len(chosen) <= (most or 60) < len(chosen) * 2 or most in (None, 59)
    assert list(some) == [sample for number, sample in enumerate(every) if number % stride == 0]
    assert (some.digests[some.kept] == every.digests[some.kept]).all()
    assert (some.draws[some.kept] == every.draws[some.kept]).all()


def test_a_record_that_is_not_among_those_is_not_judged(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(f"{TEXT}\n" * 151 + '{"text": 3}\n' + f"{TEXT}\n" * 48)
    files = open_files([tmp_path / "a.jsonl"])
    assert len(scan_samples(files, most=100)) == 100
    with pytest.raises(DataError, match=r"a\.jsonl:152"):
        scan_samples(files, most=200)


def test_an_empty_record_among_those_is_left_out_where_the_recipe_says_so(tmp_path: Path) -> None:
    """Of those between nobody knows; the others are read again under their own numbers."""
    texts = [str(number) if number not in (3, 4, 6) else "" for number in range(12)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    [file] = open_files([tmp_path / "a.jsonl"])
    with pytest.raises(DataError, match=r"a\.jsonl:4"):
        scan_samples([file], most=4)
    file = replace(file, skip_empty=True)
    found = scan_samples([file], most=4)
    assert (len(found.kept), len(found)) == (10, 2) and [*file.skipped] == [3, 6]
    assert [sample.key() for sample in found] == ["0", "9"]


def test_words_are_read_with_their_tags(tmp_path: Path) -> None:
    place = f"{tmp_path / 'records.jsonl'}:1"
    words = ["EU", "rejects", "calls"]
    expected = tagged_words(words, ["B-ORG", "O", "O"], place)
    assert expected.words == tuple(words) and expected.text == "EU rejects calls"
    for names in (("tokens", "tags"), ("tokens", "ner_tags"), ("words", "labels"), ("tokens", "pos_tags")):
        record = dict(zip(names, (words, ["B-ORG", "O", "O"]), strict=True))
        assert records(tmp_path, json.dumps({"id": "0", **record})) == [expected]
    text = "In New York, Ada is 5."
    spans = [{"start": 13, "end": 16, "label": "PER", "text": "Ada"}, {"start": 2, "end": 11, "label": "LOC"}]
    for key in ("entities", "spans"):
        [found] = records(tmp_path, json.dumps({"text": text, key: spans}))
        assert isinstance(found, TaggedText) and found.text == text
        assert found.words == ("In", "New", "York", ",", "Ada", "is", "5", ".")
        assert found.tags == ("O", "B-LOC", "I-LOC", "O", "B-PER", "O", "O", "O")
    for key, form in (
        ("entities", lambda start, end, label: [start, end, label]),  # spaCy
        ("label", lambda start, end, label: [start, end, label]),  # doccano
        ("labels", lambda start, end, label: [start, end, label]),
        ("entities", lambda start, end, label: {"id": 1, "start_offset": start, "end_offset": end, "label": label}),
        ("label", lambda start, end, label: {"start": start, "end": end, "labels": [label]}),  # Label Studio
    ):
        line = {"text": text, key: [form(13, 16, "PER"), form(2, 11, "LOC")]}
        assert records(tmp_path, json.dumps({"id": 1, **line, "Comments": []})) == [found]
    for key in ("entities", "spans", "label"):
        [outside] = records(tmp_path, json.dumps({"text": "Ada", key: []}))
        assert isinstance(outside, TaggedText) and outside.tags == ("O",)
    assert not isinstance(records(tmp_path, json.dumps({"text": "Ada", "labels": []}))[0], TaggedText)
    [inside] = records(tmp_path, json.dumps({"text": "x1:2", "spans": [{"start": 1, "end": 3, "label": "A"}]}))
    assert isinstance(inside, TaggedText) and list(zip(inside.words, inside.tags, strict=True)) == [
        *[("x", "O"), ("1", "B-A"), (":", "I-A"), ("2", "O")]
    ], "an entity that begins or ends within a word cuts it"
    (tmp_path / "named.jsonl").write_text('{"tokens": ["EU", "a"], "ner_tags": [1, 0]}\n')
    said = {"format": {"use": "tags", "names": ["O", "B-ORG"]}}
    [dataset] = open_path(PluginHost(), str(tmp_path / "named.jsonl"), said)
    assert [sample.tags for sample in dataset if isinstance(sample, TaggedText)] == [("B-ORG", "O")]


TABLE = """id,tokens,ner_tags
1,"[""EU"", ""it's""]","[1, 0]"
2,"['a, b', ""it's"", 'c']","['B-ORG', 'O', 'O']"
3,,
"""


def test_lists_that_a_table_holds_as_text_are_read_where_that_is_said(tmp_path: Path) -> None:
    """As JSON, or as pandas writes them; else the refusal offers the line that says so."""
    (tmp_path / "table.csv").write_text(TABLE)
    line = "{path: table.csv, reader: {use: csv, lists: [tokens, ner_tags]}}"
    with pytest.raises(UnknownFormatError, match=re.escape(f"'tokens' holds lists, written as text, say so: {line}")):
        open_path(PluginHost(), str(tmp_path / "table.csv"))
    said: dict[str, Any] = {"reader": {"use": "csv", "lists": ["tokens", "ner_tags"]}, "empty": "skip"}
    said["format"] = {"use": "tags", "names": ["O", "B-ORG"]}
    [dataset] = open_path(PluginHost(), str(tmp_path / "table.csv"), said)
    rows = iter(dataset)
    assert [(sample.words, sample.tags) for sample in (next(rows), next(rows)) if isinstance(sample, TaggedText)] == [
        (("EU", "it's"), ("B-ORG", "O")),
        (("a, b", "it's", "c"), ("B-ORG", "O", "O")),
    ]
    with pytest.raises(DataError, match='table.csv:4: "tokens" is missing or null'):
        next(rows)


def test_places_that_a_table_holds_as_python_writes_them_are_read(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("text,entities\nAda lives.,\"[(0, 3, 'PER')]\"\n")
    [dataset] = open_path(PluginHost(), str(tmp_path / "table.csv"), {"reader": {"use": "csv", "lists": ["entities"]}})
    assert [sample.tags for sample in dataset if isinstance(sample, TaggedText)] == [("B-PER", "O", "O")]


_QUOTE = "\\'"
"""A quote that ends no text: to look for an end from each of them would take hours."""


@pytest.mark.parametrize(
    "value,message",
    [
        ("['a' 'b']", '"words" is no list: its texts have no comma between them, as numpy writes arrays'),
        ("[1 2]", '"words" is no list: '),
        ("Ada lives", '"words" is no list: it is neither JSON nor a list as Python writes one'),
        (f"[{'1+' * 50_000}1]", '"words" is no list: it is neither JSON nor a list as Python writes one'),
        (f"[{'-' * 50_000}1]", '"words" is no list: it is neither JSON nor a list as Python writes one'),
        ("{'a': 1}", '"words" is no list, and reader.lists names it'),
        ("[print(1)]", '"words" is no list: it is neither JSON nor a list as Python writes one'),
        ("[{[]: 1}]", '"words" is no list: '),
        ("[" * 5000, '"words" is no list: '),
        (f"['{_QUOTE * 200_000}", '"words" is no list: it is neither JSON nor a list as Python writes one'),
    ],
)
def test_what_is_no_list_in_a_table_is_refused(tmp_path: Path, value: str, message: str) -> None:
    (tmp_path / "table.csv").write_text(f'words,tags\n"{value}",[]\n')
    with pytest.raises(DataError, match=rf"table\.csv:2: {re.escape(message)}"):
        open_path(PluginHost(), str(tmp_path / "table.csv"), {"reader": {"use": "csv", "lists": ["words", "tags"]}})
    with pytest.raises(DataError, match="reader.lists names 'tokens', and no column is called so"):
        open_path(PluginHost(), str(tmp_path / "table.csv"), {"reader": {"use": "csv", "lists": ["tokens"]}})


@pytest.mark.parametrize(
    "text,start,end,cut",
    [
        ("by Ada Love.", 3, 11, False),
        ("by Ada Love.", 3, 10, True),  # an end that is the last character's place
        ("\U0001f600 by Ada Love.", 6, 14, True),  # places in UTF-16, where this character counts as two
        ("x12", 1, 3, True),
        ("Love,ly", 0, 4, False),
        ("住在北京市", 2, 4, False),  # no spaces between words
        ("by\r\nAda", 4, 7, False),
    ],
)
def test_places_of_entities_that_cut_a_word_are_told(
    tmp_path: Path, text: str, start: int, end: int, cut: bool
) -> None:
    (tmp_path / "placed.jsonl").write_text(json.dumps({"text": text, "entities": [[start, end, "PER"]]}))
    [dataset] = open_path(PluginHost(), str(tmp_path / "placed.jsonl"))
    assert ("entities begin or end within a word" in dataset.reading) == cut


@pytest.mark.parametrize(
    "record,message",
    [
        ({"tokens": ["a"], "tags": ["O", "O"]}, '"tokens" has 1 words, and "tags" 2 tags'),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, 'word 2 of "tokens" is empty'),
        ({"tokens": [], "tags": []}, '"tokens" is empty: there is nothing to learn'),
        ({"tokens": ["a", 5], "tags": ["O", "O"]}, 'word 2 of "tokens" is a number, no text'),
        ({"tokens": ["a"], "tags": [""]}, 'one of "tags" is empty'),
        ({"tokens": ["a"], "tags": [None]}, 'one of "tags" is null'),
        ({"tokens": ["a"], "ner_tags": [3]}, "the tag is the number 3, for which there is no word"),
        ({"tokens": ["a"], "ner_tags": [3]}, "format: {use: tags, names: [FIRST, SECOND]}"),
        ({"tokens": ["a"], "tags": "O"}, '"tags" is a string, no list'),
        ({"tokens": ["a"], "tags": "['O']"}, "say which columns hold lists: reader: {use: csv, lists: [tags]}"),
        ({"tokens": ["a"], "tags": None}, '"tags" is missing or null'),
        ({"text": "abc", "entities": [{"start": 0, "end": 9, "label": "A"}]}, "from 0 to 9; the text has 3 characters"),
        ({"text": "abc", "entities": [{"start": 0, "end": 2}]}, 'is no object with "start" and "end"'),
        ({"text": "abc", "entities": [{**ENTITY, "end": True}]}, 'is no object with "start" and "end"'),
        ({"text": "abc", "entities": [["abc", "A"]]}, '"label", a text, nor a list of the three'),
        ({"text": "abc", "entities": [[0, 1, "A", 2]]}, "nor a list of the three"),
        ({"text": "abc", "entities": [{"start": 0, "end": 1, "labels": ["A", "B"]}]}, "has 2 labels"),
        ({"text": "abc", "entities": None}, 'neither "entities" nor "spans" says which entities the text has'),
        (
            {"text": "abc", "entities": [{"start": a, "end": a + 2, "label": "A"} for a in (0, 1)]},
            "the entities 'A' up to 2 and 'A' from 1 of \"entities\" overlap",
        ),
        (
            {"text": "abc", "entities": [[0, 3, "A"]] * 3},  # 400,000 of a text of 25 MB took minutes
            'the entities of "entities" overlap: together they are more than twice as long as the text',
        ),
        (
            {"text": "\U0001f600 Ada came", "entities": [{"start": 3, "end": 6, "text": "Ada", "label": "A"}]},
            "the entity 'A' of 'entities' has the text 'Ada', and from 3 to 6 stands 'da '",
        ),
    ],
)
def test_words_and_tags_that_do_not_fit_are_refused(tmp_path: Path, record: dict[str, Any], message: str) -> None:
    first = {"tokens": ["a"], "tags": ["O"]} if "text" not in record else {"text": "a", "entities": [ENTITY]}
    key = next((key for key in record if key.endswith("tags")), "tags")
    first = {key if name == "tags" else name: value for name, value in first.items()}
    told = refusal(tmp_path, f"{json.dumps(first)}\n{json.dumps(record)}")
    assert message in told and "records.jsonl:2" in told
    assert "tokens" not in record or "format: text" not in told, "which lists of words are not of"
