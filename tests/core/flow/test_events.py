"""Events and errors, as another process or a queue of messages gets them."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
from pathlib import Path
from typing import Any, get_args

import graftkit
import pytest
import torch
from click.testing import CliRunner
from graftkit import errors
from graftkit.cli.main import cli
from graftkit.flow import events
from graftkit.flow.events import Event, Notice, Planned, Progress, RunFailed, RunFinished, StepFinished
from graftkit.flow.state.log_events import log
from graftkit.interfaces.offline import offline_asked
from safetensors.torch import save_file

PAGE = (Path(__file__).parents[3] / "docs" / "embedding.md").read_text(encoding="utf-8")


def error_classes(base: type[errors.GraftkitError] = errors.GraftkitError) -> list[type[errors.GraftkitError]]:
    found = [base, *(inner for child in base.__subclasses__() for inner in error_classes(child))]
    return [cls for cls in found if cls.__module__ == errors.__name__]


def test_each_error_has_a_code_of_its_own_which_the_page_lists() -> None:
    listed = dict(re.findall(r"^\| `([a-z-]+)` \| `(\w+)` \|", PAGE, re.MULTILINE))
    assert listed == {cls.code: cls.__name__ for cls in error_classes()}


@pytest.mark.parametrize("cls", error_classes())
def test_errors_cross_processes(cls: type[errors.GraftkitError]) -> None:
    error = cls("it is wrong", where="recipe.training.steps", hint="Mend it.")
    error.add_note("Go on with it.")
    sent = pickle.loads(pickle.dumps(error))
    assert type(sent) is cls and str(sent) == str(error) and sent.to_json() == error.to_json()
    assert json.loads(json.dumps(sent.to_json()))["notes"] == ["Go on with it."]


def test_where_names_the_key_of_a_mapping() -> None:
    with pytest.raises(errors.RecipeError) as wrong:
        graftkit.load_recipe({"model": "m", "data": {"train": ["a", {"path": 3}]}, "training": {"steps": 3}})
    assert wrong.value.where == "recipe.data.train.1.path"
    with pytest.raises(errors.RecipeError) as wrong:
        graftkit.load_recipe({"model": "m", "data": {"train": "a"}, "training": {"stepz": 3}})
    assert wrong.value.where == "recipe.training.stepz" and wrong.value.code == "recipe"


def test_the_page_lists_each_event() -> None:
    names = {cls.__name__ for cls in get_args(Event)}
    assert names <= set(events.__all__)
    assert {
        name
        for row in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", PAGE, re.MULTILINE)
        for name in re.findall(r"\w+", row)
    } >= names


def test_a_run_tells_plan_steps_and_result(
    tiny_model: Path, chat_records: Path, tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a program that changes its current folder, nor a handler of logging that raises, ends the run."""

    class Raising(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raise ValueError(f"mine: {record.getMessage()}")

    def changing_folder(event: Event) -> None:
        seen.append(event)
        os.chdir(tmp_path / "elsewhere")

    recipe = {
        "model": tiny_model,
        "data": {"train": chat_records, "max_length": 64},
        "training": {"steps": 3, "tokens_per_step": 256},
    }
    seen: list[Event] = []
    assert logging.getLogger("graftkit").handlers == [] and not logging.getLogger("graftkit").isEnabledFor(logging.INFO)
    (tmp_path / "elsewhere").mkdir()
    with monkeypatch.context() as patched, caplog.at_level(logging.INFO, "graftkit"):
        patched.chdir(tmp_path)
        patched.setattr(logging.root, "handlers", [*logging.root.handlers, Raising()])
        result = graftkit.run(recipe, out="run", on_event=changing_folder)
    assert result.folder == tmp_path / "run" and not list((tmp_path / "elsewhere").iterdir())
    assert [said for said in result.manifest["notices"] if "a handler of logging raised ValueError: mine" in said]
    assert sum("handler of logging" in str(event) for event in seen if isinstance(event, Notice)) == 1
    first, last = seen[0], seen[-1]
    assert isinstance(first, Planned) and first.plan == graftkit.plan(recipe).to_json()
    assert isinstance(last, RunFinished) and last.manifest == result.manifest
    assert {event.run for event in seen} == {result.manifest["id"]} and len(result.manifest["id"]) == 32
    assert [event.time for event in seen] == sorted(event.time for event in seen)
    for event in seen:
        told = json.loads(json.dumps(event.to_json()))
        assert told["event"] == type(event).__name__ and pickle.loads(pickle.dumps(event)) == event
        assert told["stage"] or event is last
    steps = [event for event in seen if isinstance(event, StepFinished)]
    assert steps[-1].seconds_left == 0 < (steps[0].seconds_left or 0)
    assert any(event.seconds_left is not None for event in seen if isinstance(event, Progress))
    assert {record.levelname for record in caplog.records} == {"INFO"} and "finished: " in caplog.text

    def stop(event: Event) -> None:
        seen.append(event)
        cancel.cancel("enough")

    cancel = graftkit.CancelToken()
    with pytest.raises(errors.Cancelled):
        graftkit.run(recipe, out=tmp_path / "other", on_event=stop, cancel=cancel)
    assert isinstance(seen[-1], RunFailed) and seen[-1].error["code"] == "cancelled"


def test_nothing_is_logged_where_python_shows_it_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    log(Notice("plan", "careful"))
    assert capsys.readouterr() == ("", "")


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails whoever asks the network."""
    import socket

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("the network is asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    found = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *a, **b: (found if host == "127.0.0.1" else refuse)(host, *a, **b)
    )


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A folder that is an adapter's by its names."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "target_modules": ["q_proj"]}')
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(1, 4)}, folder / "adapter_model.safetensors")
    return folder


@pytest.mark.usefixtures("no_network")
def test_offline_fetches_nothing(tiny_model: Path, chat_records: Path, adapter: Path) -> None:
    data = {"train": chat_records, "max_length": 64}
    with pytest.raises(errors.ModelError, match="since offline was asked for"):
        graftkit.plan({"model": "nobody/nothing-here", "data": data}, offline=True)
    with pytest.raises(errors.DataError, match="since offline was asked for"):
        graftkit.plan({"model": tiny_model, "data": {"train": "hub:nobody/nothing-here"}}, offline=True)
    with pytest.raises(errors.ModelError, match="since offline was asked for"):
        graftkit.generate("hub:nobody/nothing-here", "hello", offline=True)
    with pytest.raises(errors.ModelError, match="since offline was asked for"):
        graftkit.export(adapter, "merged", base="nobody/nothing-here", offline=True)
    graftkit.plan({"model": tiny_model, "data": data}, offline=True)


ASKING = {
    "run": ["RECIPE"],
    "plan": ["RECIPE"],
    "preview": ["RECIPE"],
    "generate": ["hub:nobody/nothing-here", "hello"],
    "serve": ["hub:nobody/nothing-here", "--port", "0"],
    "export": ["ADAPTER", "--to", "merged", "--base", "nobody/nothing-here"],
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("command", ASKING)
def test_every_command_that_may_fetch_can_be_told_not_to(
    chat_records: Path, adapter: Path, tmp_path: Path, command: str
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"model": "hub:nobody/nothing-here", "data": {"train": str(chat_records)}}))
    places = {"RECIPE": str(recipe), "ADAPTER": str(adapter)}
    arguments = [places.get(argument, argument) for argument in ASKING[command]]
    found = CliRunner().invoke(cli, [command, *arguments, "--offline"])
    assert isinstance(found.exception, errors.ModelError), found.exception
    assert "since offline was asked for" in found.exception.message
    assert not offline_asked(), "the next command of this process may"
