"""Records as data sets in use have them: read as what they mean, or refused with a line that works once written."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
import yaml
from graftkit import LabelledText, load_recipe
from graftkit.corpus.dataset import Dataset
from graftkit.errors import DataError
from graftkit.flow.planning.plan_notices import told_of_files
from graftkit.flow.records.datasets import open_datasets, read_for
from graftkit.recipe.bind import bind
from graftkit.testing import isolated_host

CALL = {"name": "add", "arguments": {"a": 1}}
TOOL = {"name": "add", "parameters": {"type": "object"}}


def user(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": text, **more}


def assistant(text: Any, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": name, "value": text} for name, text in zip(["human", "gpt"] * len(texts), texts, strict=False)]


def written(folder: Path, content: Any, name: str = "a.jsonl") -> Path:
    path = folder / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        rows = content if isinstance(content, list) else [content]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def opened(entry: Any) -> list[Dataset]:
    host = isolated_host()
    return open_datasets(bind(load_recipe({"model": "./m", "data": {"train": entry}}), host), host, "train")


def keys(entry: Any) -> list[Any]:
    return [sample.key() for dataset in opened(entry) for sample in dataset]


def refusal(entry: Any) -> str:
    with pytest.raises(DataError) as caught:
        keys(entry)
    return str(caught.value)


QA = [["user", "q"], ["assistant", "a"]]
HUMAN, ASSISTANT = "\n\nHuman: ", "\n\nAssistant: "


def both(asked: list[list[str]], chosen: str, rejected: str) -> dict[str, Any]:
    """The key of a pair, whose prompt is not learnt."""
    silent = [[*said, {"weight": 0.0}] for said in asked]
    return {name: [*silent, ["assistant", text]] for name, text in (("chosen", chosen), ("rejected", rejected))}


CALLED = [["user", "q"], ["assistant", "", {"tool_calls": [["add", {"a": 1}, ""]]}]]
READ: dict[str, tuple[dict[str, Any], Any]] = {
    "calls of ShareGPT": (
        {"conversations": [*turns("q"), {"from": "function_call", "value": json.dumps(CALL)}], "tools": "[]"},
        CALLED,
    ),
    "reasoning beside calls of ShareGPT": (
        {"conversations": [*turns("q"), {"from": "function_call", "value": json.dumps(CALL), "reasoning": "t"}]},
        [CALLED[0], ["assistant", "", {"reasoning": "t", "tool_calls": [["add", {"a": 1}, ""]]}]],
    ),
    "weights of a prompt": (
        {"prompt": [user("q"), assistant("b", weight=1), user("r", train=True)], "completion": [assistant("a")]},
        [
            *([*said, {"weight": 0.0}] for said in (["user", "q"], ["assistant", "b"], ["user", "r"])),
            ["assistant", "a"],
        ],
    ),
    "a text after messages": (
        {"prompt": [user("q")], "completion": "a"},
        [["user", "q", {"weight": 0.0}], ["assistant", "a"]],
    ),
    "parallel calls": (
        {"conversations": [*turns("q"), {"from": "function_call", "value": json.dumps([CALL, CALL])}]},
        [CALLED[0], ["assistant", "", {"tool_calls": [["add", {"a": 1}, ""]] * 2}]],
    ),
    "calls in a column": (
        {"id": 1, "query": "q", "answers": json.dumps([CALL]), "tools": json.dumps([TOOL])},
        {"messages": CALLED, "tools": [TOOL]},
    ),
    "functions as of old": (
        {"messages": [user("q"), assistant("a")], "functions": [TOOL]},
        {"messages": QA, "tools": [{"type": "function", "function": TOOL}]},
    ),
    "a part that is thinking": (
        {"messages": [user("q"), assistant([{"type": "thinking", "thinking": "t"}, {"type": "text", "text": "a"}])]},
        [["user", "q"], ["assistant", "a", {"reasoning": "t"}]],
    ),
    "parts without a type": ({"messages": [user([{"text": "q"}]), assistant([{"text": "a"}])]}, QA),
    "keys of two formats": ({"conversations": [{"role": "user", "value": "q"}, {"role": "bot", "value": "a"}]}, QA),
    "from and content": ({"messages": [{"from": "human", "content": "q"}, {"from": "gpt", "content": "a"}]}, QA),
    "a weight called training": (
        {"messages": [user("q", training=False), assistant("a", training=True)]},
        [["user", "q", {"weight": 0.0}], ["assistant", "a", {"weight": 1.0}]],
    ),
    "empty lists": ({"messages": [user("q"), assistant("a", refusal=None, annotations=[], tool_calls=[])]}, QA),
    "roles of Cohere": ({"messages": [{"role": "User", "content": "q"}, {"role": "Chatbot", "content": "a"}]}, QA),
    "prompt and output": ({"prompt": "q", "output": "a"}, QA),
    "inputs and targets": ({"inputs": "q", "targets": "a", "task": "t"}, QA),
    "texts in turn": ({"conversations": ["q", "a"], "source": "s"}, QA),
    "pairs of input and output": ({"source": "s", "conversation": [{"input": "q", "output": "a"}]}, QA),
    "the first of SQuAD's answers": (
        {
            "id": "1",
            "title": "t",
            "context": "c",
            "question": "q",
            "answers": {"text": ["a", "b"], "answer_start": [0, 3]},
        },
        [["user", "q\n\nc"], ["assistant", "a"]],
    ),
    "transcripts": (
        {
            "chosen": f"{HUMAN}q{ASSISTANT}b{HUMAN} r {ASSISTANT}a",
            "rejected": f"{HUMAN}q{ASSISTANT}b{HUMAN}r{ASSISTANT}c",
        },
        both([["user", "q"], ["assistant", "b"], ["user", "r"]], "a", "c"),
    ),
    "a transcript before texts": (
        {"prompt": f"{HUMAN}q{ASSISTANT.rstrip()}", "chosen": " a", "rejected": " b"},
        both([["user", "q"]], "a", "b"),
    ),
    "an input as the prompt of a pair": (
        {"system": "s", "input": "q", "chosen": "a", "rejected": "b", "rating": [9, 1]},
        both([["system", "s"], ["user", "q"]], "a", "b"),
    ),
    "a pair beside turns without roles": (
        {"conversation": [{"input": "q", "output": None}], "prompt": "q", "chosen": "a", "rejected": "b"},
        both([["user", "q"]], "a", "b"),
    ),
    "content with a label": ({"content": "q", "title": "t", "label": "a"}, QA),
    "tools beside a prompt and its completion": (
        {"prompt": [user("q")], "completion": "a", "tools": json.dumps([TOOL]), "system_prompt": "s"},
        {"messages": [["system", "s"], ["user", "q", {"weight": 0.0}], ["assistant", "a"]], "tools": [TOOL]},
    ),
    "tools beside two answers": (
        {"prompt": "q", "chosen": "a", "rejected": "b", "tools": [TOOL]},
        {name: {"messages": messages, "tools": [TOOL]} for name, messages in both([["user", "q"]], "a", "b").items()},
    ),
    "reasoning in a column": (
        {"instruction": "q", "output": "a", "reasoning_content": "t"},
        [["user", "q"], ["assistant", "a", {"reasoning": "t"}]],
    ),
    "earlier turns": (
        {"system": "s", "query": "q", "response": "a", "history": [["r", "b"]]},
        [["system", "s"], ["user", "r"], ["assistant", "b"], *QA],
    ),
    "a generated solution": ({"problem": "q", "generated_solution": "a", "expected_answer": "x"}, QA),
}


@pytest.mark.parametrize("name", READ)
def test_it_is_read_as_what_it_means(tmp_path: Path, name: str) -> None:
    record, expected = READ[name]
    assert keys(str(written(tmp_path, record))) == [expected]


READ_INTO = {
    "who speaks": ({"conversation": ["q", "a"]}, "the user's and the assistant's in turn"),
    "who says which of a pair": ({"conversation": [{"input": "q", "output": "a"}]}, '"input" is the user\'s'),
    "where a transcript is cut": (
        {"chosen": f"{HUMAN}q{ASSISTANT}a", "rejected": f"{HUMAN}q{ASSISTANT}b"},
        "cut at Human:",
    ),
    "which answer is learnt": (
        {"question": "q", "answers": {"text": ["a", "b"], "answer_start": [0, 1]}},
        "of several answers the first",
    ),
}


@pytest.mark.parametrize("name", READ_INTO)
def test_what_records_do_not_say_is_told(tmp_path: Path, name: str) -> None:
    record, told = READ_INTO[name]
    path = written(tmp_path, record)
    [dataset] = opened(str(path))
    assert told in dataset.reading
    bound = bind(load_recipe({"model": "./m", "data": {"train": str(path)}}), isolated_host())
    [notice] = [line for line in told_of_files(bound, [dataset, dataset]) if told in line]
    assert notice.startswith(f"{path} and 1 more: read as {dataset.format_name}: ")


def test_a_language_that_is_not_read_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, {"translation": {"en": "q", "fr": "a", "de": "x"}})
    [dataset] = opened({"path": str(path), "format": {"use": "translation", "source": "en", "target": "fr"}})
    assert [sample.key() for sample in dataset] == [QA]
    assert dataset.reading == "en is translated into fr; not read: de"


def test_a_text_without_a_translation_is_left_out_where_the_recipe_says_so(tmp_path: Path) -> None:
    said = {"use": "translation", "source": "en", "target": "fr"}
    whole = {"translation": {"en": "q", "fr": "a"}}
    for lacking in ({"translation": {"en": "r", "fr": None}}, {"translation": {"fr": "a"}}, {"translation": None}):
        path = str(written(tmp_path, [whole, lacking]))
        assert "a.jsonl:2: there is no text in the language" in refusal({"path": path, "format": said})
        assert keys({"path": path, "format": said, "empty": "skip"}) == [QA]


@pytest.mark.parametrize("said", ["translation", {"use": "translation", "source": "en", "target": "de"}])
def test_languages_that_records_do_not_have_are_refused_with_those_that_they_have(tmp_path: Path, said: Any) -> None:
    path = written(tmp_path, {"translation": {"en": "q", "fr": "a"}})
    refused = refusal({"path": str(path), "format": said})
    assert "not of the format translation" in refused
    assert "{path: a.jsonl, format: {use: translation, source: en, target: fr}}" in refused


def table(folder: Path, name: str, rows: list[dict[str, Any]], features: Any) -> Path:
    """A table as `datasets` writes it, with what it keeps of the columns."""
    metadata = {"huggingface": features if isinstance(features, str) else json.dumps({"info": {"features": features}})}
    made = pyarrow.Table.from_pylist(rows).replace_schema_metadata(metadata)
    if name.endswith(".parquet"):
        pyarrow.parquet.write_table(made, folder / name)
    else:
        with pyarrow.ipc.new_stream(folder / name, made.schema) as stream:
            stream.write_table(made)
    return folder / name


def labels(*names: str) -> dict[str, Any]:
    return {"names": [*names], "_type": "ClassLabel"}


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_numbers_are_the_words_that_a_table_keeps_for_them(tmp_path: Path, name: str) -> None:
    """Of labels and tags, in lists of this and of older versions; a column may have another name in the recipe."""

    def read(rows: list[dict[str, Any]], features: Any, **entry: Any) -> Any:
        path = table(tmp_path, name, rows, features)
        [dataset] = opened({"path": str(path), **entry})
        return [*dataset], dataset.reading

    news, text = labels("World", "Sports"), {"dtype": "string", "_type": "Value"}
    found, told = read([{"text": "q", "label": 1}], {"text": text, "label": news})
    assert found[0].label == "Sports"
    assert told == "the numbers of 'label' stand for the words that the file keeps: World, Sports"
    found, _ = read([{"sentence": "q", "topic": 0}], {"topic": news}, columns={"text": "sentence", "label": "topic"})
    assert found[0].label == "World"
    found, _ = read([{"text": "q", "labels": [1, 0]}], {"labels": {"feature": news, "_type": "Sequence"}})
    assert found[0].labels == ("Sports", "World")
    tags = {"pos_tags": [labels("NN")], "ner_tags": {"feature": labels("O", "B-PER"), "_type": "List"}}
    found, _ = read([{"tokens": ["a"], "pos_tags": [0], "ner_tags": [1]}], tags)
    assert found[0].tags == ("B-PER",)
    found, _ = read(
        [{"tokens": ["a"], "pos_tags": [0], "ner_tags": [1]}], tags, columns={"tags": "pos_tags", "unread": "ner_tags"}
    )
    assert found[0].tags == ("NN",)
    said = {"use": "label", "names": ["bad", "good"]}
    found, told = read([{"text": "q", "label": 1}], {"label": news}, format=said)
    assert (found[0].label, told) == ("good", "")


@pytest.mark.parametrize(
    ("record", "column", "offered"),
    [
        ({"sentence": "q", "label": 1, "idx": 0}, "label", "columns: {text: sentence}}"),
        ({"question": "q", "sentence": "r", "label": 1}, "label", "columns: {text: question, text_pair: sentence}}"),
        ({"text": "q", "intent": 1}, "intent", "columns: {label: intent}}"),
        ({"tweet": "q", "class": 1, "count": 3}, "class", "columns: {text: tweet, label: class}}"),
    ],
)
def test_numbers_that_a_table_keeps_words_for_are_labels(
    tmp_path: Path, record: dict[str, Any], column: str, offered: str
) -> None:
    path = table(tmp_path, "a.parquet", [record], {column: labels("no", "yes")})
    found = refusal(str(path))
    assert offered in found
    [dataset] = opened(as_said(found.partition("\n")[2], path))
    [sample] = dataset
    assert isinstance(sample, LabelledText) and sample.label == "yes"


@pytest.mark.parametrize("more", [{"targets": {"choices": ["a"]}}, {"candidates": [{"reply": "a"}]}])
def test_a_text_is_not_taken_for_all_that_there_is(tmp_path: Path, more: dict[str, Any]) -> None:
    """Beside lists of texts, or objects, it may be half of the record."""
    found = refusal(str(written(tmp_path, [{"sample": "q", **more}] * 2)))
    assert "no question and no answer as texts" in found and "format: text" not in found


def test_what_is_read_into_later_records_is_told_too(tmp_path: Path) -> None:
    """A first record may have nothing of the kind, such as no label."""
    news = {"labels": {"feature": labels("World", "Sports"), "_type": "List"}}
    path = table(tmp_path, "a.parquet", [{"text": "q", "labels": []}, {"text": "r", "labels": [1]}], news)
    [dataset] = opened({"path": str(path)})
    assert dataset.reading == "the numbers of 'labels' stand for the words that the file keeps: World, Sports"
    languages = [{"translation": dict.fromkeys(["en", "fr", more], "a")} for more in ("fr", "de", "es", "it", "nl")]
    said = {"use": "translation", "source": "en", "target": "fr"}
    lines = tmp_path / "languages.jsonl"
    lines.write_text("\n".join(map(json.dumps, languages)))
    [dataset] = opened({"path": str(lines), "format": said})
    assert dataset.reading.count("not read: ") == 3 and "not read: de; en is" in dataset.reading
    late = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}] * 100
    lines.write_text("\n".join(map(json.dumps, [*late, {"conversation": ["q", "a"]}])))
    [dataset] = opened({"path": str(lines), "format": "messages"})
    assert dataset.reading == "" and len([*dataset]) == 101
    assert "in turn" in dataset.reading
    [learnt] = read_for("labelled", opened({"path": str(lines), "format": "messages"}))
    assert len([*learnt]) == 101 and "in turn" in learnt.reading


def test_a_label_of_none_is_left_out_where_others_have_words(tmp_path: Path) -> None:
    rows = [{"text": "q", "label": 1}, {"text": "r", "label": -1}]
    path = str(table(tmp_path, "a.parquet", rows, {"label": labels("no", "yes")}))
    assert "#2: the label is the number -1, which stands for no label" in refusal(path)
    assert len(keys({"path": path, "empty": "skip"})) == 1
    path = str(table(tmp_path, "b.parquet", [{"text": "q", "label": 2}], {"label": labels("no", "yes")}))
    assert "the file keeps a word for 0 to 1" in refusal(path)


@pytest.mark.parametrize(
    "features",
    [
        *("{", "[]", "3", '{"info": []}', {"label": {"_type": "ClassLabel", "names": 3}}),
        *({"label": labels(*names)} for names in ([""], ["no", " "], ["no", "yes", "no"])),
    ],
)
def test_what_keeps_no_words_is_a_table_like_any_other(tmp_path: Path, features: Any) -> None:
    path = table(tmp_path, "a.parquet", [{"text": "q", "label": 0}], features)
    assert "the label is the number 0, for which there is no word" in refusal(str(path))


def test_of_a_tree_the_best_ranked_path_is_read(tmp_path: Path) -> None:
    def reply(text: str, *replies: Any, role: str = "assistant", **more: Any) -> dict[str, Any]:
        return {"message_id": text, "role": role, "text": text, "replies": list(replies), **more}

    tree = reply(
        "q",
        reply("second", rank=1),
        reply("deleted", rank=0, deleted=True),
        reply("first", reply("r", reply("unranked"), reply("ranked", rank=3), role="prompter"), rank=0),
        role="prompter",
    )
    record = {"message_tree_id": "q", "tree_state": "ready_for_export", "prompt": tree}
    path = [["user", "q"], ["assistant", "first"], ["user", "r"], ["assistant", "ranked"]]
    assert keys(str(written(tmp_path, record))) == [path]
    assert keys(str(written(tmp_path, tree))) == [path]
    assert keys(str(written(tmp_path, reply("q", reply("a"), reply("b"), role="prompter")))) == [QA]
    assert '"replies" is a number' in refusal(str(written(tmp_path, {"prompt": {**tree, "replies": 3}})))


def test_messages_of_a_tree_keep_what_they_say(tmp_path: Path) -> None:
    """A weight, reasoning and calls are read as those of any message; other keys are refused, as they are there."""

    def tree(top: bool, **more: Any) -> Any:
        node = {
            "role": "assistant",
            "text": "a",
            "rank": 0,
            "labels": {"toxicity": {"value": 0}},
            "replies": [],
            **more,
        }
        record = {"role": "prompter", "text": "q", "weight": 0.5, "lang": "en", "replies": [node]}
        return str(written(tmp_path, record if top else {"prompt": record}))

    for top in (True, False):
        said = {"weight": 2.0, "reasoning": "t", "tool_calls": [["add", {"a": 1}, ""]]}
        path = [["user", "q", {"weight": 0.5}], ["assistant", "a", said]]
        assert keys(tree(top, weight=2, reasoning_content="t", tool_calls=[CALL], emojis=None)) == [path]
        assert "message 2: a message has" in refusal(tree(top, score=3))
        assert keys({"path": tree(top, score=3), "format": {"use": "message-tree", "ignore": ["score"]}})
        assert 'message 1: a reply has a "rank" that is a string' in refusal(tree(top, rank="0"))


@pytest.mark.parametrize("more", [{}, {"message_id": "1", "parent_id": None, "rank": 0, "lang": "en"}])
@pytest.mark.parametrize("key", ["text", "content"])
def test_a_message_that_is_a_record_is_no_text(tmp_path: Path, more: dict[str, Any], key: str) -> None:
    path = written(tmp_path, [{"role": "prompter", key: "q", **more}, {"role": "assistant", key: "a", **more}])
    found = refusal(str(path))
    assert found.startswith(f"{path}:1: the record is one message") and "format: text" in found
    assert keys({"path": str(path), "format": "text"}) == ["q", "a"]


REFUSED: dict[str, tuple[Any, str]] = {
    "other case": ({"Question": "q", "Complex_CoT": "t", "Answer": "a"}, "reasoning_content: Complex_CoT}}"),
    "a list of another name": ({"id": 1, "items": turns("q", "a")}, "no format fits"),
    "an article and its summary": ({"id": "1", "article": "q", "highlights": "a"}, "no format fits"),
    "two other texts": ({"url": "u", "left": "q", "right": "a"}, "no format fits"),
    "typing errors": ({"promt": "q", "chosen": "a", "rejceted": "b"}, "'promt' is meant as prompt and 'rejceted'"),
    "two answers": ({"question": "q", "answer": "x", "response": "a"}, "no format fits"),
    "several formats": ({"conversations": turns("q", "a"), "instruction": "x", "output": "y"}, "could be read as"),
    "keys of messages": (
        {"messages": [user("q", timestamp="t"), assistant("a", id="x", timestamp="t")]},
        "found role, content, timestamp",
    ),
    "a role of their own": ({"messages": [{"role": "the narrator", "content": "q"}, assistant("a")]}, "role 'the narr"),
    "another system prompt": (
        {"system": "s", "messages": [{"role": "system", "content": "t"}, user("q"), assistant("a")]},
        "its first message is another one",
    ),
    "an empty answer": ([{"question": "q", "answer": "a"}, {"question": "r", "answer": ""}], ":2: the answer is empty"),
    "calls under a text and beside it": (
        {"conversations": [*turns("q"), {"from": "function_call", "value": json.dumps(CALL), "tool_calls": [CALL]}]},
        "message 2: it has calls under value and beside it",
    ),
    "a missing answer": ([{"question": "q", "answer": "a"}, {"question": "r", "answer": None}], "has no answer"),
    "an empty text": ([{"text": ""}, {"text": "a"}], ':1: "text" is empty'),
    "no turn of the assistant": ([{"messages": [user("q")]}, {"messages": [user("q"), assistant("a")]}], "no turn of"),
    "a text in several languages": ({"id": "0", "translation": {"en": "q", "no": "a"}}, "no format fits"),
    "texts in turn under another name": ({"dialog": ["q", "a"], "act": [1, 2]}, "no format fits"),
    "a pair of other prompts": (
        [
            {"chosen": f"{HUMAN}q{ASSISTANT}a", "rejected": f"{HUMAN}q{ASSISTANT}b"},
            {"chosen": f"{HUMAN}q{ASSISTANT}a", "rejected": f"{HUMAN}r{ASSISTANT}b"},
        ],
        ":2: what stands before the chosen answer",
    ),
    "a transcript that nobody answers": (
        [
            {"chosen": f"{HUMAN}q{ASSISTANT}a", "rejected": f"{HUMAN}q{ASSISTANT}b"},
            {"chosen": f"{HUMAN}q{ASSISTANT}a{HUMAN}r", "rejected": f"{HUMAN}q{ASSISTANT}b"},
        ],
        ':2: "chosen" ends with a message of the user',
    ),
    "a question that has no answer in its context": (
        [{"question": "q", "context": "c", "answers": {"text": texts, "answer_start": []}} for texts in (["a"], [])],
        ":2: the question has no answer",
    ),
    "a text with several labels": (
        {"text": "q", "coarse_label": "a", "fine_label": "b"},
        "'coarse_label' beside 'text' would not be read",
    ),
    "a text and its summary": (
        {"text": "q", "title": "t", "summary": "a"},
        "'summary' beside 'text' would not be read",
    ),
    "wrong answers": ({"query text": "q", "correct_answer": "a", "incorrect_answer": "b"}, "answer: correct_answer}}"),
    "an answer beside what is asked and answered by its name": (
        {"question": "q", "solutions": "a", "input_output": "{}"},
        "answer: solutions}}",
    ),
    "messages and a text that answers them": (
        {"input": [user("q")], "output": "a", "category": "x", "system_prompt": "s"},
        "format: prompt-completion, columns: {prompt: input, completion: output}}",
    ),
    "texts and what they were before": (
        {"inputs": [1], "inputs_pretokenized": "q", "targets": [2], "targets_pretokenized": "a"},
        "no format fits",
    ),
    "a target that is no label": ({"kind": "k", "input": "q", "target": "a"}, "answer: target}}"),
    "duplicates": ({"qid1": "1", "question1": "q", "question2": "a", "is_duplicate": "1"}, "{label: is_duplicate}}"),
    "reasoning of another name": (
        {"question": "q", "answer": "a", "complex_cot": "t u"},
        "'complex_cot', what is thought before the answer, would not be read",
    ),
    "reasoning and the answer of its own": (
        {"problem": "q", "some_reasoning": "t u", "some_solution": "a", "true_solution": "b"},
        "answer: some_solution, reasoning_content: some_reasoning}}",
    ),
    "a solution and its result": (
        {"question": "q", "solution": "It is a.", "answer": "a"},
        "columns: {answer: solution, unread: answer}}",
    ),
    "turns of no pairs": (
        [{"query": "q", "response": "a", "history": turns} for turns in ([], ["r"])],
        ":2: history 1: a turn of the history is a pair",
    ),
    "tools of another name": (
        {"messages": [user("q"), assistant("a")], "available_tools": json.dumps([TOOL])},
        "'available_tools' beside messages would not be read",
    ),
    "the answer to a prompt": ({"prompt": "q", "solution": "a"}, "'solution', the answer to 'prompt',"),
    "the answer to messages": (
        {"messages": [user("q")], "ground_truth": "a", "dataset": "x"},
        "'ground_truth', the answer to 'messages',",
    ),
    "a query that answers a question": (
        {"db_id": "d", "query": "SELECT 1", "question": "q", "query_toks": ["SELECT", "1"]},
        "no format fits",
    ),
    "one text of another name": ({"sample": "a", "id": 3}, "no format fits"),
    "a text and a number": ({"sentence": "q", "label": 1}, "no format fits"),
}


def as_said(hint: str, path: Path) -> dict[str, Any]:
    """The entry that a hint writes: whole, the first one of several, or the last key of one."""
    whole = re.search(r"\{path: .*\}", re.split(r" or(?:, where .*?,)? \{path", hint)[0])
    said = whole[0] if whole else re.findall(r"(?:format|columns): (?:\{.*\}|[\w-]+)", hint)[-1]
    entry = yaml.safe_load(said.replace("FIRST", "zero").replace("SECOND", "a"))
    return {**entry, "path": str(path)}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_read_once_the_hint_is_written(tmp_path: Path, name: str) -> None:
    records, message = REFUSED[name]
    path = written(tmp_path, records)
    found = refusal(str(path))
    assert message in found and found.startswith(str(path))
    assert keys(as_said(found.partition("\n")[2], path))[-1] is not None


def test_no_choice_of_unknown_number_is_offered_as_the_answer(tmp_path: Path) -> None:
    record = {"question": "q", "context": "c", "answerA": "a", "answerB": "b", "answerC": "d", "label": "1"}
    found = refusal(str(written(tmp_path, record)))
    assert "no format fits" in found and "answer: answer" not in found and "use: label" not in found


NO_TEXTS: dict[str, tuple[dict[str, Any], str, dict[str, str]]] = {
    "several answers": (
        {"question": "q", "answer": ["a", "b"]},
        "the first of its texts is meant",
        {"question": "q", "answer": "a"},
    ),
    "an answer with its aliases": (
        {"question": "q", "answer": {"aliases": ["b"], "value": "a"}},
        "its value is meant",
        {"question": "q", "answer": "a"},
    ),
    "the number of a choice": (
        {"question": "q", "choices": ["b", "a"], "answer": 1},
        "'choices' beside 'question' would not be read",
        {"question": "q\nb\na", "answer": "a"},
    ),
    "the letter of a choice": (
        {"question": "q", "choices": {"label": ["A", "B"], "text": ["b", "a"]}, "answerKey": "B"},
        "'choices' beside 'question' would not be read",
        {"question": "q\nA. b\nB. a", "answer": "B"},
    ),
    "the letter of a text": (
        {"article": "t", "question": "q", "options": ["b", "a"], "answer": "B"},
        "'options' beside 'question' would not be read",
        {"question": "t\nq\nb\na", "answer": "a"},
    ),
    "a choice": (
        {"question": "q", "options": ["b", "a"], "answer": "a"},
        "'options' beside 'question' would not be read",
        {"question": "q\nb\na", "answer": "a"},
    ),
    "a context in titles and sentences": (
        {"question": "q", "answer": "a", "context": {"title": ["s", "t"], "sentences": [["b.", " c."], ["d."]]}},
        "'context', what the question is about,",
        {"instruction": "q", "input": "s\nb. c.\n\nt\nd.", "output": "a"},
    ),
    "contexts": (
        {"question": "q", "answer": "a", "contexts": ["b", "c"]},
        "'contexts', what the question is about,",
        {"instruction": "q", "input": "b\n\nc", "output": "a"},
    ),
    "a number": ({"question": "q", "answer": 3}, "its JSON is meant", {"question": "q", "answer": "3"}),
}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", NO_TEXTS)
def test_an_answer_that_is_no_text_becomes_one_by_the_command_that_is_told(
    tmp_path: Path, name: str, suffix: str
) -> None:
    record, told, expected = NO_TEXTS[name]
    path = tmp_path / f"a.{suffix}"
    if suffix == "jsonl":
        written(tmp_path, record)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([record]), path)
    found = refusal(str(path))
    assert told in found
    [command] = re.findall(r"(?:makes it one|makes records of them): (.* > records\.jsonl)(?:$|; or)", found)
    command = command.replace("FILE", str(path))
    assert ("read_table" in command) == (suffix == "parquet")
    if shutil.which("jq"):
        command = command.replace("python ", f"{sys.executable} ")
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        made = json.loads((tmp_path / "records.jsonl").read_text())
        assert {key: made[key] for key in expected} == expected and keys(str(tmp_path / "records.jsonl"))


TWO = {"prompt": "q", "response_1": "b", "response_2": "a"}
GLAIVE = "\n\n\n".join(
    [
        "USER: q\nr",
        "ASSISTANT: <functioncall> {} <|endoftext|>",
        "FUNCTION RESPONSE: {}",
        "ASSISTANT: a <|endoftext|>\n",
    ]
)
COMMENT = {"id": "0f", "comment_text": "a comment of some words", "toxic": 1}
JIGSAW = [{**COMMENT, "an obscene one": mark} for mark in (0, 1, 1)]
KTO = [{"prompt": "q", "completion": text} for text in "ab"]
LABELLED = [{"answer": [["user", "q"], ["assistant", text]], "wanted": text == "a"} for text in "ab"]
CHOICE = [["user", "q\na\nb"], ["assistant", "b"]]
PAIR = {"chosen": [*QA[:1], ["assistant", "a"]], "rejected": [*QA[:1], ["assistant", "b"]]}

REMADE: dict[str, tuple[Any, str, list[Any]]] = {
    "the second of two answers": ({**TWO, "preference_strength": 1}, "says the better one", [PAIR]),
    "the first of two answers": (
        {"context": [user("q")], "response1": "a", "response2": "b", "overall_preference": -2, "domain": "code"},
        "says the better one",
        [PAIR],
    ),
    "two answers and the number of one": (
        {"prompt": "q", "response_0": "b", "response_1": "a", "better_response_id": 1, "is_response_0_safe": True},
        "'better_response_id' says",
        [PAIR],
    ),
    "two answers and their scores": (
        {"question": {"full_text": "q"}, "answer_0": "a", "answer_1": "b", "score_0": 1.0, "score_1": -1.0},
        "'score_0' and 'score_1' say the better one",
        [PAIR],
    ),
    "two conversations": (
        {
            "conversation_a": [user("q"), assistant("b")],
            "conversation_b": [user("q"), assistant("a")],
            "winner": "model_b",
        },
        "'winner' says",
        [PAIR],
    ),
    "ranks": (
        {
            "prompt": "\n\nHuman: q\n\nAssistant: ",
            "answers": [{"answer": text, "rank": rank} for text, rank in (("c", 2.0), ("a", 1.0), ("b", 3.0))],
        },
        "says the best and the worst one",
        [PAIR],
    ),
    "ratings that are texts": (
        {
            "instruction": "q",
            "completions": [{"response": "a", "overall_score": "10"}, {"response": "b", "overall_score": "9"}],
        },
        "says the best and the worst one",
        [PAIR],
    ),
    "ratings": (
        {
            "instruction": "q",
            "completions": [{"response": "b", "overall_score": 2}, {"response": "a", "overall_score": 7}],
        },
        "says the best and the worst one",
        [PAIR],
    ),
    "questions in turn": (
        {"story": "s", "questions": ["q", "r"], "answers": {"input_text": ["a", "b"], "answer_start": [0, 1]}},
        "a conversation",
        [[["user", "s\n\nq"], ["assistant", "a"], ["user", "r"], ["assistant", "b"]]],
    ),
    "endings": (
        {"activity_label": "x", "ctx": "q", "endings": ["b", "a"], "label": "1"},
        "says the right one",
        [["q", " a"]],
    ),
    "answers wanted or not, by numbers": (
        [{**row, "label": label} for row, label in zip(KTO, (1, 0), strict=True)],
        "'label' beside 'prompt' and 'completion', which says whether the answer is wanted,",
        LABELLED,
    ),
    "answers wanted or not, by words": (
        [{**row, "label": label} for row, label in zip(KTO, ("True", "False"), strict=True)],
        "which says whether the answer is wanted,",
        LABELLED,
    ),
    "answers wanted or not, beside conversations": (
        [{"conversations": turns("q", text), "kto_tag": text == "a"} for text in "ab"],
        "'kto_tag' beside 'conversations', which says whether the answer is wanted,",
        LABELLED,
    ),
    "a rejected answer beside messages": (
        {"messages": [user("q"), assistant("a")], "rejected_response": "b"},
        "'rejected_response', an answer that is worse than another,",
        [PAIR],
    ),
    "a rejected answer beside messages without one": (
        {"messages": [user("q")], "chosen_response": assistant("a"), "rejected_response": assistant("b")},
        "an answer that is worse than another,",
        [PAIR],
    ),
    "OpenAI's preferred output": (
        {
            "input": {"messages": [user("q")], "tools": []},
            "preferred_output": [assistant("a")],
            "non_preferred_output": [assistant("b")],
        },
        "an answer that is worse than another,",
        [PAIR],
    ),
    "two answers and their votes": (
        {"history": "q", "human_ref_A": "b", "human_ref_B": "a", "score_A": 2, "score_B": 9, "labels": 0},
        "'score_A' and 'score_B' say the better one",
        [PAIR],
    ),
    "choices in columns": (
        [{"goal": "q", "sol1": "a", "sol2": "b", "label": label} for label in (1, 0, 1)],
        "'sol1' and 'sol2', of which 'label' says the right one,",
        [CHOICE, [CHOICE[0], ["assistant", "a"]], CHOICE],
    ),
    "choices that are counted from one": (
        [{"question": "q", "answerA": "a", "answerB": "b", "label": label} for label in "212"],
        "'answerA' and 'answerB', of which 'label' says the right one,",
        [CHOICE, [CHOICE[0], ["assistant", "a"]], CHOICE],
    ),
    "texts of the same meaning": (
        [{"set": ["q", "a", "b"]}, {"set": ["r", "c"]}],
        "'set' holds texts of the same meaning",
        [{"query": "q", "positives": ["a", "b"], "negatives": []}, {"query": "r", "positives": ["c"], "negatives": []}],
    ),
    "contexts beside a long answer": (
        {"id": 1, "question": "q", "context": {"contexts": ["c", "d"], "meshes": ["m"]}, "long_answer": "a"},
        "'context', what the question is about,",
        [[["user", "q\n\nc\n\nd"], ["assistant", "a"]]],
    ),
    "choices in a list that are counted from one": (
        [{"question": "q", "choices": ["a", "b"], "answer": number} for number in (2, 1, 2, -1)],
        "'choices' beside 'question'",
        [[["user", "q\na\nb"], ["assistant", text]] for text in "bab"],
    ),
    "choices in a list whose numbers are texts": (
        [{"question": "q", "choices": ["a", "b"], "answer": number} for number in ("1", "0")],
        "'choices' beside 'question'",
        [[["user", "q\na\nb"], ["assistant", text]] for text in "ba"],
    ),
    "numbers to choose from": (
        {"question": "q", "choices": ["2", "1"], "answer": "1"},
        "'choices' beside 'question'",
        [[["user", "q\n2\n1"], ["assistant", "1"]]],
    ),
    "choices by letters in an object": (
        [
            {"question": "q", "options": {"A": "a", "B": "b"}, "answer": "b", "answer_idx": "B"},
            {"question": "q", "options": {"A": "a", "B": "b"}, "answer": "B", "answer_idx": "B"},
        ],
        "'options' beside 'question'",
        [CHOICE, CHOICE],
    ),
    "choices in columns by letters": (
        {"question": "q", "A": "a", "B": "b", "answer": "B"},
        "'A' and 'B', of which 'answer' says the right one,",
        [CHOICE],
    ),
    "endings in columns": (
        [
            {"video-id": "v w", "startphrase": "q", "sent1": "q", "ending0": "a", "ending1": "b", "label": label}
            for label in (1, 0, -1)
        ],
        "'ending0' and 'ending1', of which 'label' says the right one,",
        [["q", " b"], ["q", " a"]],
    ),
    "the number of one of some choices": (
        {"context": "t", "query": "q", "options": ["b", "a"], "correct_option": 1},
        "'options' beside 'query'",
        [[["user", "t\nq\nb\na"], ["assistant", "a"]]],
    ),
    "several answers to questions in turn": (
        {
            "context": "s",
            "questions": ["q", "r"],
            "answers": {"texts": [["a", "x"], ["b"]], "answer_starts": [[0], [1]]},
        },
        "a conversation",
        [[["user", "s\n\nq"], ["assistant", "a"], ["user", "r"], ["assistant", "b"]]],
    ),
    "spans of an answer": (
        {"question": "q", "answers_spans": {"spans": ["a", "b"], "types": ["span", "span"]}},
        "'answers_spans' of 'question'",
        [[["user", "q"], ["assistant", "a, b"]]],
    ),
    "passages that are selected": (
        {"query": "q", "passages": {"is_selected": [0, 1], "passage_text": ["b", "a"]}, "answers": ["x"]},
        "'is_selected' says which ones answer",
        [{"query": "q", "positives": ["a"], "negatives": ["b"]}],
    ),
    "parts of Gemini's": (
        {
            "systemInstruction": {"parts": [{"text": "s"}]},
            "contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}],
        },
        "'contents', of parts,",
        [[["system", "s"], *QA]],
    ),
    "a system prompt in parts": (
        {"system": [{"text": "s"}], "messages": [user([{"text": "q"}]), assistant([{"text": "a"}])]},
        "'system', a list of parts,",
        [[["system", "s"], *QA]],
    ),
    "messages of trees": (
        [
            {"message_id": "0", "parent_id": None, "role": "prompter", "text": "q", "rank": None},
            {"message_id": "1", "parent_id": "0", "role": "assistant", "text": "b", "rank": 1},
            {"message_id": "2", "parent_id": "0", "role": "assistant", "text": "a", "rank": 0},
        ],
        "'parent_id', the message that each one follows,",
        [QA],
    ),
    "the truth of a prompt": (
        {"prompt": [user("q")], "reward_model": {"style": "rule", "ground_truth": "a"}, "data_source": "d"},
        "'ground_truth' in 'reward_model'",
        [QA],
    ),
    "shares of labels": (
        {"text": "q", "toxicity": 0.7, "insult": 0.5, "threat": 0.1},
        "'toxicity' and 2 more columns, each a share of a label",
        [{"text": "q", "labels": ["insult", "toxicity"]}],
    ),
    "pairs in several languages": (
        {
            "premise": {"en": "p", "de": "q"},
            "hypothesis": {"language": ["de", "en"], "translation": ["r", "s"]},
            "label": "x",
        },
        "in several languages",
        [
            {"pair": ["q", "r"], "label": [["user", "q\n\nr"], ["assistant", "x"]]},
            {"pair": ["p", "s"], "label": [["user", "p\n\ns"], ["assistant", "x"]]},
        ],
    ),
    "turns in one text": (
        {"system": "SYSTEM: s", "chat": GLAIVE},
        "holds turns of USER:",
        [
            [
                *[["system", "s"], ["user", "q\nr"], ["assistant", "<functioncall> {}"]],
                *[["user", "FUNCTION RESPONSE: {}"], ["assistant", "a"]],
            ]
        ],
    ),
    "a column a label": (
        JIGSAW,
        "'toxic' and 1 more column are labels",
        [
            {"text": JIGSAW[0]["comment_text"], "labels": found}
            for found in (["toxic"], *[["an obscene one", "toxic"]] * 2)
        ],
    ),
}


@pytest.mark.parametrize("name", ["conversation", "conversations"])
@pytest.mark.parametrize("turns", [["q", "a"], [{"input": "q", "output": "a"}], [user("q"), assistant("a")]])
def test_turns_that_are_written_as_text_are_read_as_it_is_told(tmp_path: Path, turns: Any, name: str) -> None:
    record = {name: json.dumps(turns)}
    path = written(tmp_path, record)
    [command] = re.findall(r"jq -c '.*' FILE > records\.jsonl", refusal(str(path)))
    if shutil.which("jq"):
        subprocess.run(command.replace("FILE", str(path)), shell=True, check=True, cwd=tmp_path)
        assert keys(str(tmp_path / "records.jsonl")) == [QA]
    with (tmp_path / "a.csv").open("w") as file:
        table = csv.DictWriter(file, record)
        table.writeheader()
        table.writerow(record)
    assert keys({"path": str(tmp_path / "a.csv"), "reader": {"use": "csv", "lists": [name]}}) == [QA]


def test_a_label_that_says_neither_is_reported_by_the_command(tmp_path: Path) -> None:
    records = [{"prompt": "q", "completion": text, "label": label} for text, label in (("a", 1), ("b", 0), ("c", None))]
    found = refusal(str(path := written(tmp_path, records)))
    [command] = re.findall(r"jq -c '.*' FILE > records\.jsonl", found)
    if shutil.which("jq"):
        done = subprocess.run(
            command.replace("FILE", str(path)), shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        assert done.returncode and "label is neither yes nor no" in done.stderr
        assert len(keys(str(tmp_path / "records.jsonl"))) == 2


def test_the_first_solution_of_a_list_that_is_text_is_read_as_it_is_told(tmp_path: Path) -> None:
    records = [{"question": "q", "solutions": '["a", "b"]', "id": 1}, {"question": "r", "solutions": "", "id": 2}]
    found = refusal(str(path := written(tmp_path, records)))
    [command] = re.findall(r"jq -c '.*' FILE > records\.jsonl", found)
    if shutil.which("jq"):
        subprocess.run(command.replace("FILE", str(path)), shell=True, check=True, cwd=tmp_path)
        made = tmp_path / "records.jsonl"
        assert keys(as_said(refusal(str(made)).partition("\n")[2], made)) == [QA]


@pytest.mark.parametrize("text", ["['q', 'a']", "[A] hello [B] hi", '["q", "a"'])
def test_no_command_is_told_that_does_not_read_what_looks_like_a_list(tmp_path: Path, text: str) -> None:
    found = refusal(str(written(tmp_path, {"dialogue": text})))
    assert "no format fits" in found and "fromjson" not in found


@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((name, "jsonl") for name in REMADE), *(("a column a label", s) for s in ("json", "csv", "csv.gz", "jsonl.zst"))],
)
def test_records_of_known_shapes_are_made_by_the_command_that_is_told(tmp_path: Path, name: str, suffix: str) -> None:
    records, told, expected = REMADE[name]
    rows = records if isinstance(records, list) else [records]
    path = tmp_path / f"a.{suffix}"
    with path.open("w") as file:
        if suffix.startswith("csv"):
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows(rows)
        else:
            file.write(json.dumps(rows) if suffix == "json" else "\n".join(map(json.dumps, rows)))
    packed = {".gz": gzip.compress, ".zst": lambda data: pyarrow.compress(data, "zstd", asbytes=True)}.get(path.suffix)
    if packed:
        path.write_bytes(packed(path.read_bytes()))
    found = refusal(str(path))
    assert told in found
    [command] = re.findall(r"This makes records of them: (.* > records\.jsonl)(?:$|; or)", found)
    if shutil.which("jq"):
        command = command.replace("FILE", str(path)).replace("python ", f"{sys.executable} ")
        subprocess.run(command, shell=True, check=True, cwd=tmp_path)
        made = [sample.key() for file in opened(str(tmp_path / "records.jsonl")) for sample in file]
        assert json.loads(json.dumps(made).replace(', {"weight": 0.0}', "")) == expected


@pytest.mark.parametrize(
    "file", ["a, b: {c}.jsonl", "$(touch x) #.jsonl", "- it's.jsonl", "1e5", "no", "é\u202e.jsonl"]
)
def test_a_line_that_is_offered_names_a_file_of_any_name(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.write_text(json.dumps({"prompt": "p", "response_1": "a", "response_2": "b", "preference_strength": 1}) + "\n")
    with pytest.raises(DataError) as raised:
        opened({"path": str(path), "reader": "jsonl"})
    [line] = re.findall(r"\{path: .*, unused: \[.*?\]\}", raised.value.hint)
    assert yaml.safe_load(line)["path"] == file


def test_records_with_nothing_to_learn_are_left_out_counted_and_read_again_alike(tmp_path: Path) -> None:
    rows = [{"question": f"{n}", "answer": "" if n % 3 == 0 else "a"} for n in range(8)]
    [dataset] = opened({"path": str(written(tmp_path, rows)), "empty": "skip"})
    found = [sample.key()[0][1] for sample in dataset]
    assert found == ["1", "2", "4", "5", "7"] and dataset.facts()["skipped"] == 3
    wanted = [True, False, True, True, False]
    again = [sample and sample.key()[0][1] for sample in dataset.after(iter(wanted))]
    assert again == ["1", None, "4", "5", None]
    next(iter(dataset))
    assert dataset.facts()["skipped"] == 3


FILES: dict[str, tuple[str, str]] = {
    "an object over lines": ("json", json.dumps({"messages": [user("q"), assistant("a")]}, indent=2)),
    "an object on a line": ("json", json.dumps({"messages": [user("q"), assistant("a")]})),
    "objects over lines": ("jsonl", "\n".join([json.dumps({"question": "q", "answer": "a"}, indent=1)] * 1)),
    "a list under a key": ("json", json.dumps({"data": [{"question": "q", "answer": "a"}], "version": 1})),
    "a list under a key before texts": (
        "json",
        json.dumps({"data": [{"question": "q", "answer": "a"}], "note": '"b": [{"', "tags": ["[{", []]}),
    ),
    "row numbers": ("csv", ",question,answer\n0,q,a\n"),
    "spaces around names": ("csv", "question , answer\nq,a\n"),
    "bars": ("csv", "question|answer\nq|a\n"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_form_is_read(tmp_path: Path, name: str) -> None:
    suffix, text = FILES[name]
    assert keys(str(written(tmp_path, text.encode(), f"a.{suffix}"))) == [QA]


MALFORMED = {
    "a line that is a list": ("jsonl", "[{}]\n[{}]\n", "jq -c '{messages: .}'"),
    "a line that is a pair": ("jsonl", '["q", "a"]\n["r", "b"]\n', "jq -c '{query: .[0], positive: .[1]}'"),
    "a line that is a text": ("jsonl", '"a"\n"b"\n', "jq -c '{text: .}'"),
    "an array of pairs": ("json", '[["q", "a"], ["r", "b"]]', "jq -c '.[] | {query: .[0], positive: .[1]}'"),
    "an array of arrays": ("json", "[[{}], [{}]]", "jq -c '.[] | {messages: .}'"),
    "two arrays": ("json", '[{"text": "a"}]\n[{"text": "b"}]', "more stands after the array of 1 records"),
    "an array after an object": (
        "json",
        '{"data": [\n{"text": "a"}]}\n[{"text": "lost"}]',
        "more stands after the array",
    ),
    "an object after an object": ("json", '{"data": [\n{"text": "a"}], "v": 1}\n{"text": "lost"}', "more stands after"),
    "a list within a further value": (
        "json",
        '{"a": [{"text": "a"}], "b": {"c": [[{}]]}}',
        "more than one list of records",
    ),
    "an object cut behind its list": ("json", '{"data": [\n{"text": "a"}]\n', "the object that holds the records"),
    "an object cut behind a value": (
        "json",
        '{"data": [\n{"text": "a"}],\n"v": "1}]',
        "the object that holds the records",
    ),
    "a comma behind a list": ("json", '{"data": [\n{"text": "a"}],\n}', "after the list of 1 records: no JSON"),
    "no comma behind a list": (
        "json",
        '{"data": [\n{"text": "a"}] {"text": "lost"}}',
        "after the list of 1 records: no JSON",
    ),
    "a list twice": ("json", '{"data": [\n{"text": "a"}], "data": 0}', "a key stands in it twice"),
    "two lists of records": ("json", '{"a": [{"text": "a"}],\n "b": [{"text": "b"}]}', "more than one list of records"),
    "a comma after a line": ("jsonl", '{"text": "a"},\n{"text": "b"},\n', "jq -c . FILE > records.jsonl"),
    "a comma after the last": ("json", '[{"text": "a"},]', "no comma after the last record"),
    "a comment": ("json", '[\n// c\n{"text": "a"}]', "JSON has no comments"),
    "Python's notation": ("jsonl", "{'text': 'a'}\n", "json.dumps(record)"),
    "Python's notation in a table": ("csv", "messages\n\"[{'role': 'user'}]\"\n", "Python's notation"),
    "an answer that is a number": ("jsonl", '{"question": "q", "answer": 3}\n', "jq -c '.answer |= tostring'"),
    "a file of Windows": (
        "csv",
        "question,answer\nq,\x93a\x94\n",
        "CSV UTF-8, and a file from Windows is made so by: iconv -f WINDOWS-1252",
    ),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_told_with_what_to_do(tmp_path: Path, name: str) -> None:
    suffix, text, told = MALFORMED[name]
    path = written(tmp_path, text.encode("latin-1"), f"a.{suffix}")
    found = refusal(str(path))
    assert found.startswith(str(path)) and told in found
