"""graftkit inside a program: every command is a function, whose result is typed, JSON and picklable."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import graftkit
import pytest
import torch
import yaml
from click.testing import CliRunner
from graftkit.cli.main import cli
from graftkit.errors import Cancelled, DataError, FolderError, FolderInUseError, PluginError, RecipeError, RequestError
from graftkit.flow.answering.reload import reload
from graftkit.flow.events import StepFinished
from graftkit.flow.folders.own_files import others_files
from graftkit.flow.records.handed_records import RECORDS, keep_records, same_records, words_beside
from graftkit.interfaces.samples import Message
from graftkit.report.run_manifest import RunManifest
from odd_mappings import Raising
from safetensors.torch import load_file

RecipeMaker = Callable[..., dict[str, Any]]
ROWS = [
    {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
    for n in range(60)
]


def short(tiny_model: Path, **sections: Any) -> dict[str, Any]:
    return {
        "model": tiny_model,
        "data": {"max_length": 64},
        "adapter": {"use": "lora", "rank": 4},
        "training": {"steps": 2, "tokens_per_step": 256, "learning_rate": 1e-2, "device": "cpu"},
        **sections,
    }


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> graftkit.RunResult:
    """A run on records that a generator gave, which is gone."""
    recipe = short(tiny_model, export=["peft"])
    return graftkit.run(recipe, out=tmp_path_factory.mktemp("runs") / "run", train=(row for row in ROWS))


def as_json(found: Any) -> Any:
    """Returns what is JSON of a result, as another process gets it that was sent it."""
    sent = pickle.loads(pickle.dumps(found))
    assert sent == found
    return json.loads(json.dumps(sent.to_json()))


def test_records_from_an_iterator_become_the_runs_own_files(finished: graftkit.RunResult, tiny_model: Path) -> None:
    kept = finished.folder / "records" / "train.jsonl"
    assert [json.loads(line) for line in kept.read_text().splitlines()] == ROWS
    said = as_json(finished)
    assert said["status"] == "finished" and "records/train.jsonl" in said["artifacts"]
    of_itself = short(tiny_model, adapter={"from": str(finished.exports["peft"])})
    with pytest.raises(FolderError, match="adapter.from names .* which lies in the run that would be replaced"):
        graftkit.run(of_itself, out=finished.folder, train=ROWS, overwrite=True)
    held = {"data": {"max_length": 64, "holdout": f"{finished.folder}/rec*/*.jsonl"}}  # where the new ones would lie
    with pytest.raises(FolderError, match="data.holdout.path names .* which lies in the run that would be replaced"):
        graftkit.run({**short(tiny_model), **held}, out=finished.folder, train=ROWS, overwrite=True)
    again = short(tiny_model, export=["peft", "merged"])
    with pytest.raises(RecipeError, match="not those that the run was started with"):
        graftkit.run(again, out=finished.folder, train=ROWS[1:], resume=True)
    with contextlib.chdir(finished.folder.parent):  # its folder may be named otherwise, as `export` names it
        went_on = graftkit.run(again, out=finished.folder.name, train=ROWS, resume=True)
    assert went_on.exports.keys() == {"peft", "merged"}


def test_records_in_memory_train_what_those_in_a_file_do(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    recipe = make_recipe(data={"max_length": 64})
    held = graftkit.run(recipe, out=tmp_path / "rows", train=ROWS[:50], holdout=ROWS[50:])
    for name, rows in (("train", ROWS[:50]), ("holdout", ROWS[50:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": tmp_path / "train.jsonl", "holdout": [tmp_path / "holdout.jsonl"], "max_length": 64}
    read = graftkit.run({**recipe, "data": data}, out=tmp_path / "files")
    adapters = [(found.folder / "adapter" / "adapter.safetensors").read_bytes() for found in (held, read)]
    assert adapters[0] == adapters[1] and held.after == read.after


def failing() -> Iterator[dict[str, Any]]:
    yield ROWS[0]
    raise OSError("the database is gone")


@pytest.mark.parametrize(
    ("rows", "error", "told"),
    [
        (["a text"], DataError, "train:1: the record is of the type str"),
        ([ROWS[0], {"text": b"bytes"}], DataError, "train:2: the record can't be written as JSON"),
        ([ROWS[0], {"messages": 3}], DataError, "train:2: "),
        ([], DataError, "train: there is no record in it"),
        (failing(), OSError, "the database is gone"),
    ],
)
def test_wrong_records_in_memory_are_named_and_leave_nothing(
    tiny_model: Path, tmp_path: Path, rows: Any, error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        graftkit.run(short(tiny_model), out=tmp_path / "run", train=rows)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"x": "a", "answer": "b"},
            r"{format: question-answer, columns: {question: x}}\. The recipe says it as data.train",
        ),
        ({"question": "a", "answer": ""}, r"{empty: skip}.* The recipe says it as data.train"),
    ],
)
def test_what_a_recipe_says_of_files_is_offered_for_records_in_memory_without_a_path(
    tiny_model: Path, row: Any, told: str
) -> None:
    with pytest.raises(DataError, match=rf"^train:1: .*\n.*{told}"):
        graftkit.plan(short(tiny_model), train=[row])


def test_records_to_evaluate_have_the_columns_of_a_format(tiny_model: Path) -> None:
    with pytest.raises(
        DataError, match=r'^records:1: .*\nHand records in with the columns of a format, such as {"quest'
    ):
        graftkit.evaluate(tiny_model, [{"x": "a", "y": "b", "z": "c"}])


def test_a_recipe_says_how_records_in_memory_are_read(tiny_model: Path) -> None:
    rows = [{"asked": f"{n} + 1?", "told": str(n + 1), "label": n % 2} for n in range(30)]
    recipe = short(tiny_model)
    recipe["data"]["train"] = {"format": "question-answer", "columns": {"question": "asked", "answer": "told"}}
    planned = graftkit.plan(recipe, overrides=["data.train.first=20"], train=rows)
    assert sum(json.loads(json.dumps(planned.to_json()))["records"]["train"].values()) == 19
    recipe = short(tiny_model, objective="classification")
    recipe["data"] |= {"train": {"format": {"use": "label", "names": ["even", "odd"]}, "columns": {"text": "asked"}}}
    assert graftkit.plan(recipe, train=rows).to_json()["records"]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"text": "a", "n": float("nan")}, r"n: Out of range float.*\n.*NaN, as pandas has it there, becomes None"),
        ({"text": "a", None: ["b"]}, r"a column that is called None, which is no text\n.*a delimiter too many"),
        ("question", r'of the type str.*\n.*of a pandas frame frame.to_dict\("records"\), of several splits one'),
    ],
)
def test_rows_that_are_none_are_told_with_what_makes_rows_of_them(tiny_model: Path, row: Any, told: str) -> None:
    with pytest.raises(DataError, match=rf"^train:1: .*{told}"):
        graftkit.plan(short(tiny_model), train=[row])


def test_a_recipe_that_names_records_takes_none_in_memory(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="records are handed in as train, and the recipe says data.train"):
        graftkit.run(make_recipe(), out=tmp_path / "run", train=ROWS)


def test_a_recipe_from_no_file_needs_a_folder(make_recipe: RecipeMaker) -> None:
    with pytest.raises(RecipeError, match='out: .*no name.*\nSay the folder: out="runs/NAME"'):
        graftkit.run(make_recipe())


def test_plan_and_preview_take_records_in_memory(tiny_model: Path) -> None:
    planned = graftkit.plan(short(tiny_model), train=ROWS)
    assert json.loads(json.dumps(planned.to_json()))["records"]["train"] == {"chat": 57}
    assert planned.to_json()["records"]["text"] == "train: 57 conversations; holdout: 3 conversations"
    with pytest.raises(TypeError, match="to_json"):
        pickle.dumps(planned)
    kept = planned.handed.files["train"].parent  # type: ignore[union-attr]
    assert kept.is_dir()
    more = graftkit.plan(short(tiny_model), train=[{**row, "id": 1} for row in ROWS])
    assert "train: read as messages; not read: id" in more.notices
    del planned
    assert not kept.exists()
    found = graftkit.preview(short(tiny_model), train=ROWS, records=2)
    assert len(found.lengths.lengths) == 57 and len(as_json(found)["examples"]) == 2
    assert any(found.examples[0].loss_weight) and "say" in "".join(found.examples[0].tokens)
    found = graftkit.preview(short(tiny_model), train=[{**row, "id": 1} for row in ROWS])
    assert [*found.notices] == [*more.notices]


def test_preview_tells_what_encoding_cuts_and_leaves_out(tiny_model: Path) -> None:
    """As a run tells of all records, of those that are measured."""
    recipe = short(tiny_model, data={"max_length": 32, "holdout": 0})
    rows = [{"prompt": f"say {n}", "completion": "much " * (40 if n % 2 else 1) + str(n)} for n in range(9)]
    planned = graftkit.plan(recipe, train=rows)
    found = graftkit.preview(recipe, train=rows)
    long, lost = [text for text in found.notices if text not in planned.notices]
    assert long.startswith("4 of 9 records are longer than 32 tokens and end with the last answer that fits: ")
    assert lost == "4 of 9 records have nothing left to learn and are not used"
    some = graftkit.preview(recipe, train=rows, measured=4).notices
    assert "2 of 4 measured records have nothing left to learn and are not used" in some
    assert [*graftkit.preview(recipe, train=rows, measured=0).notices] == [*planned.notices]


class Table(list[Any]):
    """Rows with what a `datasets.Dataset` says of its columns."""

    def __init__(self, rows: Any, **features: Any) -> None:
        super().__init__(rows)
        self.features = features


def test_numbers_of_a_table_in_memory_are_the_words_that_it_keeps(tiny_model: Path, tmp_path: Path) -> None:
    words = SimpleNamespace(names=["poor", "good"])
    rows = [{"text": f"film {n}", "label": n % 2} for n in range(40)]
    recipe = short(tiny_model, objective="classification", data={"holdout": 0.1})
    planned = graftkit.plan(recipe, train=Table(rows, text=SimpleNamespace(dtype="string"), label=words))
    assert {sample.label for sample in planned.samples.train} == {"poor", "good"}  # type: ignore[union-attr]
    of_lists = [{"text": row["text"], "labels": [row["label"]]} for row in rows]
    lists = Table(of_lists, labels=SimpleNamespace(feature=words))
    kept = keep_records({"train": lists}, tmp_path / RECORDS)
    assert words_beside(kept["train"]) == {"labels": ["poor", "good"]}
    assert same_records({"train": lists}, tmp_path / RECORDS) == kept
    with pytest.raises(RecipeError, match="not those that the run was started with"):
        same_records({"train": [*lists]}, tmp_path / RECORDS)
    killed = RunManifest(graftkit="0", status="running", recipe={})  # before it could list what it wrote
    assert others_files(tmp_path, killed) == []


def test_of_a_long_text_the_first_examples_are_shown(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = short(tiny_model, data={"max_length": 64, "holdout": 0})
    rows = [{"text": "some words\n" * 1000}, {"text": "a word"}]
    whole = graftkit.preview(recipe, train=rows)
    monkeypatch.setattr("graftkit.flow.preview._SHOWN", 200)
    monkeypatch.setattr("graftkit.interfaces.samples.LONG_TEXT", 1 << 10)
    found = graftkit.preview(recipe, train=rows)
    assert found.lengths == whole.lengths and not whole.not_shown
    assert [example.ids for example in found.examples] == [whole.examples[n].ids for n in (0, 1, 2, -1)]
    assert found.not_shown == {found.examples[0].where: len(whole.examples) - 4}
    assert all("".join(part["text"] for part in example.authors) for example in found.examples)


def test_verify_is_what_its_command_prints(finished: graftkit.RunResult) -> None:
    seen: list[Any] = []
    folder = finished.exports["peft"]
    found = graftkit.verify(folder, on_event=seen.append)
    assert as_json(found)["status"] == "proved" and found.notices == [] == seen
    printed = CliRunner().invoke(cli, ["verify", str(folder), "--json"])
    assert json.loads(printed.stdout) == as_json(found)
    cancel = graftkit.CancelToken()
    cancel.cancel("enough")
    with pytest.raises(Cancelled, match="enough"):
        graftkit.verify(folder, cancel=cancel)
    with pytest.raises(FolderError, match="no export of graftkit's"):
        graftkit.verify(finished.folder)


def test_generate_goes_on_with_conversations(finished: graftkit.RunResult) -> None:
    said = [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "say 1"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "say 2"},
    ]
    alone, *several = [
        *graftkit.generate(finished.folder, said, max_new_tokens=5),
        *graftkit.generate(finished.folder, [said, said[1:], "say 2"], max_new_tokens=5),
    ]
    model = reload(str(finished.folder))
    history = [Message("user", "say 1"), Message("assistant", "one")]
    for answer, system, before in zip(several, ("Be short.", None, None), (history, history, ()), strict=True):
        reply = model.stream("say 2", system=system, history=before, max_new_tokens=5)
        assert (answer.prompt, answer.answer, answer.prompt_tokens) == ("say 2", "".join(reply), reply.prompt_tokens)
    with pytest.raises(RequestError, match="it is a language model, which judges no texts"):
        graftkit.judge(finished.folder, said)
    assert alone == several[0] and len({answer.prompt_tokens for answer in several}) == 3


def test_prompts_side_by_side_are_answered_as_each_alone(finished: graftkit.RunResult) -> None:
    said = [{"role": "user", "content": "say 1"}, {"role": "assistant", "content": "one"}]
    prompts = ["say 1", [*said, {"role": "user", "content": "say 2 and then some more of it"}], "say 31", "x " * 160]
    context = graftkit.generate(finished.folder, prompts, max_new_tokens=200, compare=True)
    assert {answer.stopped for answer in context} <= {"end", "length"} and len({a.prompt_tokens for a in context}) > 2
    for size in (2, 4, 9):
        assert graftkit.generate(finished.folder, prompts, max_new_tokens=200, compare=True, batch_size=size) == context
    lines = "".join(f"{text}\n" for text in prompts if isinstance(text, str))
    words = ["generate", str(finished.folder), "--max-new-tokens", "5"]
    alone = CliRunner().invoke(cli, words, input=lines).stdout
    assert CliRunner().invoke(cli, [*words, "--batch-size", "2"], input=lines).stdout == alone
    with pytest.raises(RequestError, match="2 prompts are answered side by side by the likeliest tokens"):
        graftkit.generate("no folder", prompts, batch_size=2, temperature=1.0)
    with pytest.raises(RequestError, match=r"prompts\[1\]: the prompt is not UTF-8"):
        graftkit.generate(finished.folder, ["say 1", "half \ud800"], max_new_tokens=1, batch_size=2)


def test_generate_is_what_its_command_prints(finished: graftkit.RunResult) -> None:
    answers = graftkit.generate(finished.folder, ["say 1", "say 2"], max_new_tokens=5, compare=True, temperature=1.0)
    printed = CliRunner().invoke(
        cli,
        ["generate", str(finished.folder), "--max-new-tokens", "5", "--compare", "--temperature", "1", "--json"],
        input="say 1\nsay 2\n",
    )
    assert [json.loads(line) for line in printed.stdout.splitlines()] == [as_json(answer) for answer in answers]
    assert graftkit.generate(finished.folder, "say 1", max_new_tokens=1)[0].tokens == 1
    with pytest.raises(RequestError, match=r"prompts\[1\]: the prompt is not UTF-8"):
        graftkit.generate(finished.folder, ["say 1", "half \ud800"], max_new_tokens=1)
    with pytest.raises(RequestError, match="top_p: it is 2; from 0 to 1 is allowed"):
        graftkit.generate(finished.folder, "say 1", top_p=2)


def test_export_of_a_run_and_of_an_adapter(finished: graftkit.RunResult, tmp_path: Path) -> None:
    found = graftkit.export(finished.folder, "merged", {"name": "half", "dtype": "bfloat16"})
    assert found.folder == finished.folder / "exports" / "half" and as_json(found)["proof"]["status"] == "proved"
    assert found.run is not None and "half" in found.run.exports
    of_adapter = graftkit.export(finished.exports["peft"], "merged", out=tmp_path / "out")
    assert of_adapter.folder == tmp_path / "out" / "exports" / "merged" and of_adapter.run is None
    with pytest.raises(RequestError, match=r"out=\.\.\.: only for an adapter's folder"):
        graftkit.export(finished.folder, "merged", out=tmp_path)


def test_errors_name_options_as_whoever_called_knows_them(finished: graftkit.RunResult, tiny_model: Path) -> None:
    """An argument to a program, an option to a command."""
    told = "Give another folder with {}, replace that run with {}, or go on with it with {}."
    records = finished.folder.parent / "records.jsonl"
    records.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    said = short(tiny_model, data={"train": str(records), "max_length": 64})
    with pytest.raises(FolderError) as caught:
        graftkit.run(said, out=finished.folder)
    assert caught.value.hint == told.format("out=...", "overwrite=True", "resume=True")
    recipe = finished.folder.parent / "recipe.yaml"
    recipe.write_text(json.dumps({**said, "model": str(tiny_model)}))
    found = CliRunner().invoke(cli, ["run", str(recipe), "--out", str(finished.folder)])
    assert isinstance(found.exception, FolderError)
    assert found.exception.hint == told.format("--out", "--overwrite", "--resume")
    command = ["export", str(finished.folder), "--to", "merged", "--other-base"]
    assert "--other-base: only for" in str(CliRunner().invoke(cli, command).exception)


def test_compare_is_picklable(finished: graftkit.RunResult) -> None:
    found = graftkit.compare([finished.folder, str(finished.folder)])
    assert len(as_json(found)["runs"]) == 2


def test_a_run_leaves_no_part_of_a_model_behind(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    def alive() -> int:
        return sum(issubclass(type(found), torch.nn.Module) for found in gc.get_objects())

    recipe = make_recipe(evaluation={"answers": 2, "max_new_tokens": 2})
    graftkit.run(recipe, out=tmp_path / "first")  # libraries keep some of their own
    before = alive()
    result = graftkit.run(recipe, out=tmp_path / "second")
    assert alive() == before and result.after is not None


def adapter_of(folder: Path) -> bytes:
    return (folder / "adapter" / "adapter.safetensors").read_bytes()


def test_runs_in_several_threads_are_what_each_is_alone(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    def state() -> list[Any]:
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return [handlers, list(logging.root.handlers), dict(os.environ), Path.cwd(), torch.get_num_threads()]

    before = state()
    graftkit.run(make_recipe(), out=tmp_path / "alone")
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda name: graftkit.run(make_recipe(), out=tmp_path / name), "abc"))
    alone = load_file(tmp_path / "alone/adapter/adapter.safetensors")
    for result in found:
        for name, tensor in load_file(result.folder / "adapter/adapter.safetensors").items():
            torch.testing.assert_close(tensor, alone[name], rtol=0, atol=1e-5)
    assert len({result.manifest["id"] for result in found}) == 3 and state() == before


COLD = """
import json, sys
from concurrent.futures import ThreadPoolExecutor
import graftkit
recipe = json.loads(sys.argv[1])
with ThreadPoolExecutor(4) as pool:
    print([plan.checked["device"] for plan in pool.map(lambda n: graftkit.plan(recipe, as_run=True), range(4))])
"""


def test_the_first_requests_of_a_process_may_come_in_several_threads(make_recipe: RecipeMaker) -> None:
    """Each imports torch and transformers, which are half there meanwhile, and reads the architecture's code."""
    command = [sys.executable, "-c", COLD, json.dumps(make_recipe())]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.stdout.strip() == str(["cpu"] * 4), done.stderr


def test_a_folder_is_one_runs_at_a_time(make_recipe: RecipeMaker, tmp_path: Path) -> None:
    """Whoever is refused is not told to go on with what is going on."""
    refused = []
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(make_recipe()))

    def again(event: Any) -> None:
        if isinstance(event, StepFinished) and not refused:
            for options in ([], ["--resume"], ["--overwrite"]):
                line = [str(tmp_path / "job.yaml"), "--out", str(tmp_path / "run"), *options]
                error = CliRunner().invoke(cli, ["run", *line]).exception
                assert isinstance(error, FolderInUseError), options
                assert "a run or an export is going on in it" in str(error) and not getattr(error, "__notes__", None)
                refused.append(error)

    assert graftkit.run(make_recipe(), out=tmp_path / "run", on_event=again).manifest["status"] == "finished"
    assert refused


def test_a_program_that_is_told_to_end_stops_its_run_and_goes_on_later(
    make_recipe: RecipeMaker, tmp_path: Path
) -> None:
    cancel = graftkit.CancelToken()
    former = signal.signal(signal.SIGTERM, lambda number, frame: cancel.cancel("told to end"))

    def told(event: Any) -> None:
        if isinstance(event, StepFinished) and event.step.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        with pytest.raises(Cancelled, match="told to end"):
            graftkit.run(make_recipe(), out=tmp_path / "run", on_event=told, cancel=cancel)
    finally:
        signal.signal(signal.SIGTERM, former)
    stopped = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert stopped["status"] == "interrupted" and stopped["error"]["code"] == "cancelled"
    again = graftkit.run(make_recipe(), out=tmp_path / "run", resume=True)
    graftkit.run(make_recipe(), out=tmp_path / "whole")
    assert adapter_of(again.folder) == adapter_of(tmp_path / "whole") and again.manifest["id"] == stopped["id"]


HOLDS_ITSELF: dict[str, Any] = {"model": "m"}
HOLDS_ITSELF["data"] = HOLDS_ITSELF


def plan_without(plugin: str) -> None:
    """Plans a recipe that leaves a plugin out, which the host that is handed in decides alone."""
    recipe = {"model": "m", "data": {"train": "rows.jsonl"}, "plugins": {"disable": [plugin]}}
    graftkit.plan(recipe, host=graftkit.PluginHost())


MISUSES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: graftkit.plan(None), RecipeError, "recipe: it is of the type NoneType"),  # type: ignore[arg-type]
    (lambda: graftkit.plan("a\0.yaml"), RecipeError, "recipe: it has a null character"),
    (lambda: graftkit.plan(HOLDS_ITSELF), RecipeError, "nested too deeply"),
    (lambda: graftkit.plan({"x": (n for n in ())}), RecipeError, "recipe.x: .*generator"),
    (lambda: graftkit.plan({"training": {"steps": 10**5000}}), RecipeError, "recipe.training.steps: "),
    (lambda: graftkit.plan(Raising()), RecipeError, "recipe: it is of the type Raising"),
    (lambda: graftkit.plan({"model": [Raising()]}), RecipeError, "recipe.model.0: it is of the type Raising"),
    (partial(plan_without, "nobody"), PluginError, "recipe.plugins.disable: there is no plugin 'nobody' to leave out"),
    (partial(plan_without, "readers"), PluginError, "plugins.disable: the plugin 'readers' is to be left out, and the"),
    (lambda: graftkit.plan({}, overrides=[5]), RecipeError, r"overrides\[0\]: "),  # type: ignore[list-item]
    (lambda: graftkit.plan({}, train=5), DataError, "train: it is of the type int"),  # type: ignore[arg-type]
    (lambda: graftkit.plan({}, host=5), RequestError, "host: "),  # type: ignore[arg-type]
    (lambda: graftkit.run({}, out=5), FolderError, "out: it is of the type int"),  # type: ignore[arg-type]
    (lambda: graftkit.run({}, out="a\0b"), FolderError, "out: it has a null character"),
    (lambda: graftkit.preview({}, records=-1), RequestError, "records: it is -1"),
    (lambda: graftkit.generate("m", [5]), RequestError, r"prompts\[0\]: "),  # type: ignore[arg-type]
    (lambda: graftkit.judge("m", 5), RequestError, "texts: it is of the type int"),  # type: ignore[arg-type]
    (lambda: graftkit.judge("m", ["x", [5]]), RequestError, r"texts\[1\]: it is neither a text"),  # type: ignore[list-item]
    (lambda: graftkit.judge("m", {"text": b"x"}), RequestError, r"texts\[0\]: it can't be written"),  # type: ignore[dict-item]
    (lambda: graftkit.generate("m", 5), RequestError, "prompts: it is of the type int"),  # type: ignore[arg-type]
    (lambda: graftkit.generate("m", ["x", []]), RequestError, r"prompts\[1\]: it is neither a text nor a list of mess"),
    (
        lambda: graftkit.generate("m", [{"role": "judge", "content": "x"}]),
        RequestError,
        r"prompts\[0\]: .*one of system",
    ),
    (
        lambda: graftkit.generate("m", [{"role": "assistant", "content": "x"}]),
        RequestError,
        "its last .* role assistant",
    ),
    (lambda: graftkit.generate("m", [{"role": "user", "content": "x"}], plain=True), RequestError, "plain: a conversa"),
    (lambda: graftkit.generate("m", "x", max_new_tokens=-1), RequestError, "max_new_tokens: it is -1"),
    (lambda: graftkit.generate("m", "x", tools=[5]), RequestError, "tools: "),  # type: ignore[list-item]
    (lambda: graftkit.export("r", 5), RequestError, "to: "),  # type: ignore[arg-type]
    (lambda: graftkit.export("r", "peft", {"x": iter(())}), RequestError, "options.x: "),
    (lambda: graftkit.export("r", "peft", proof="no"), RequestError, "proof: it is 'no'"),  # type: ignore[arg-type]
    (lambda: graftkit.verify(None), FolderError, "export: it is of the type NoneType"),  # type: ignore[arg-type]
    (lambda: graftkit.verify("x", disable="abc"), RequestError, "disable: it is of the type str"),
    *(
        (partial(command, **{name: value}), RequestError, f"{name}: it is of the type ")  # type: ignore[misc]
        for command in (
            partial(graftkit.run, {}),
            partial(graftkit.export, "r", "peft"),
            partial(graftkit.verify, "x"),
            partial(graftkit.verify_run, "x"),
        )
        for name, value in (("on_event", "print"), ("cancel", graftkit.CancelToken))
    ),
    (lambda: graftkit.run({}, processes=2), RequestError, "processes: it is of the type int"),  # type: ignore[arg-type]
    (lambda: graftkit.run({}, overwrite="no"), RequestError, "overwrite: "),  # type: ignore[arg-type]
    (lambda: graftkit.run({}, resume=1), RequestError, "resume: "),  # type: ignore[arg-type]
    (lambda: graftkit.plan({}, offline="false"), RequestError, "offline: "),  # type: ignore[arg-type]
    (lambda: graftkit.preview({}, measured=1 << 99), RequestError, "measured: it is too large"),
    (lambda: graftkit.generate("m", "x", host=5), RequestError, "host: "),  # type: ignore[arg-type]
    (lambda: graftkit.generate("m", "x", seed=1 << 99), RequestError, "seed: it is too large"),
    (lambda: graftkit.generate("m", "x", seed=-(10**5000)), RequestError, "seed: it is too "),
    (lambda: graftkit.generate("m", "x", temperature=10**5000), RequestError, "temperature: it is a number of over"),
    (lambda: graftkit.generate("m", "x", plain="no"), RequestError, "plain: "),  # type: ignore[arg-type]
    (lambda: graftkit.generate("m", "x", temperature="hot"), RequestError, "temperature: it is 'hot'; from 0 to 100"),  # type: ignore[arg-type]
    (lambda: graftkit.PluginHost(disable="peft"), RequestError, "disable: "),
    (lambda: graftkit.PluginHost(plugins=5), RequestError, "plugins: "),  # type: ignore[arg-type]
    (lambda: graftkit.PluginHost(strict="no"), RequestError, "strict: "),  # type: ignore[arg-type]
    (lambda: graftkit.CancelToken().cancel(5), RequestError, "reason: "),  # type: ignore[arg-type]
    (lambda: graftkit.compare([5, 6]), FolderError, r"runs\[0\]: "),  # type: ignore[list-item]
    (lambda: graftkit.compare("ab"), RequestError, "two runs or more"),
]


@pytest.mark.parametrize("number", range(len(MISUSES)))
def test_what_is_handed_in_wrong_is_told_by_its_name(number: int) -> None:
    call, error, told = MISUSES[number]
    with pytest.raises(error, match=told) as caught:
        call()
    assert getattr(caught.value, "where", "") or "two runs" in told
