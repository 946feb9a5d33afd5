"""TensorBoard, wandb and MLflow are told what a run's own files say, and keep the contract of callbacks."""

from __future__ import annotations

import json
import os
import struct
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import graftkit
import pytest
from graftkit import EvaluationInfo, ExportInfo, RunInfo, StepInfo
from graftkit.errors import RunError
from graftkit.flow.folders.own_files import OWN, others_files
from graftkit.interfaces.offline import no_network_if
from graftkit.report.run_manifest import RunManifest
from graftkit.testing import CallbackContract
from graftkit_callbacks import mlflow_run
from graftkit_callbacks.config import _RUNS_OWN, MlflowConfig, TensorBoardConfig, WandbConfig
from graftkit_callbacks.mlflow_run import MlflowRun
from graftkit_callbacks.sender import Sender
from graftkit_callbacks.tensorboard import TensorBoard
from graftkit_callbacks.wandb_run import WandbRun
from pydantic import ValidationError

RECIPE = {
    "training": {"steps": 3, "learning_rate": 1e-3},
    "adapter": {"rank_pattern": {"^q.*": 8}},
    "export": [{"use": "peft"}],
}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No test tells a server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file://{tmp_path / 'mlruns'}")
    yield


class TestTensorBoardContract(CallbackContract):
    provider = "tensorboard"
    options = {"folder": "tensorboard"}


class TestWandbContract(CallbackContract):
    provider = "wandb"
    options = {"project": "contracts", "mode": "offline"}


class TestMlflowContract(CallbackContract):
    provider = "mlflow"
    options = {"experiment": "contracts"}


def follow(callback: Any, folder: Path, steps: range, status: Any = "finished") -> None:
    """Tells a callback of a run, or of a part of it, as core does."""
    run = RunInfo(folder, RECIPE, "running", "ab" * 16)
    started = getattr(callback, "graftkit_run_started", None)
    if started is not None:
        started(run)
    calls: list[tuple[str, dict[str, Any]]] = []
    if steps.start == 1:
        calls.append(("evaluation", {"evaluation": EvaluationInfo("base", 0, 9.0, 1.5)}))
        calls.append(("evaluation", {"evaluation": EvaluationInfo("before", 0, 2.5, 1.25, 2, {"exact-match": 0.0})}))
    for step in steps:
        info = StepInfo(step, 3, 2.0 / step, 100, 50, 0.5, 0.25, 1.5, {"accuracy": 0.75})
        calls.append(("step", {"step": info}))
    if status == "finished":
        calls.append(("evaluation", {"evaluation": EvaluationInfo("training", 3, 0.75)}))
        calls.append(("evaluation", {"evaluation": EvaluationInfo("after", 3, 0.5, 0.25, 2, {"exact-match": 0.5})}))
        calls.append(("export", {"export": ExportInfo("peft", "peft", folder, {"status": "proved"})}))
    for name, given in calls:
        hook = getattr(callback, f"graftkit_{name}_finished", None)
        if hook is not None:
            with_run = {"run": run} if isinstance(callback, TensorBoard) else {}
            hook(**with_run, **given)
    ended = {} if isinstance(callback, TensorBoard) else {"run": RunInfo(folder, RECIPE, status, "ab" * 16)}
    callback.graftkit_run_finished(**ended)


EXPECTED: Mapping[str, list[tuple[int, float]]] = {
    "train/loss": [(1, 2.0), (2, 1.0), (3, 2.0 / 3)],
    "train/learning_rate": [(1, 0.25), (2, 0.25), (3, 0.25)],
    "train/gradient_norm": [(1, 1.5), (2, 1.5), (3, 1.5)],
    "train/tokens_per_second": [(1, 200.0), (2, 200.0), (3, 200.0)],
    "train/accuracy": [(1, 0.75), (2, 0.75), (3, 0.75)],
    "eval/loss": [(3, 0.75)],
    "holdout/loss": [(0, 2.5), (3, 0.5)],
    "holdout/bits_per_byte": [(0, 1.25), (3, 0.25)],
    "holdout/exact-match": [(0, 0.0), (3, 0.5)],
}


def events_of(file: Path) -> dict[str, list[tuple[int, float]]]:
    """Reads TensorBoard's records: a length, its checksum, an event, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, found = file.read_bytes(), {}
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        data = data[16 + length :]
        for value in event.summary.value:
            found.setdefault(value.tag, []).append((event.step, pytest.approx(value.simple_value, rel=1e-6)))
    return found


def test_tensorboard_has_every_step_and_evaluation(tmp_path: Path) -> None:
    follow(TensorBoard(TensorBoardConfig(folder="tb")), tmp_path, range(1, 4))
    (file,) = (tmp_path / "tb").iterdir()
    assert events_of(file) == EXPECTED


def test_steps_that_a_resumed_run_takes_anew_are_purged(tmp_path: Path) -> None:
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    follow(TensorBoard(TensorBoardConfig(folder="tb")), tmp_path, range(2, 4))
    (file,) = (tmp_path / "tb").iterdir()
    data, marks = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        marks += [event.step] if event.session_log.status == SessionLog.START else []
        data = data[16 + length :]
    assert marks == [2]


def parts_of(data: bytes) -> Iterator[bytes]:
    """Reads LevelDB's log, after a header of 7 bytes: blocks of 32768 with records, some of them in parts."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
        length, kind = struct.unpack("<HB", data[place + 4 : place + 7])
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole one, or the last part of one
            yield whole
            whole = b""


def record_of(data: bytes) -> Any:
    from wandb.proto import wandb_internal_pb2

    record = wandb_internal_pb2.Record()
    record.ParseFromString(data)
    return record


def records_of_wandb(folder: Path) -> tuple[dict[str, Any], dict[str, list[tuple[int, float]]], dict[str, Any]]:
    """Reads the file that `wandb sync` uploads: its configuration, its history, its summary."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    ended = time.monotonic() + 60  # wandb's own process writes on for a moment
    while not any(record_of(data).HasField("exit") for data in parts_of(file.read_bytes())):
        assert time.monotonic() < ended, "wandb has not written the run's end"
        time.sleep(0.05)
    config: dict[str, Any] = {}
    history: dict[str, list[tuple[int, float]]] = {}
    summary: dict[str, Any] = {}
    for data in parts_of(file.read_bytes()):
        record = record_of(data)
        if record.HasField("run"):
            config |= {each.key: json.loads(each.value_json) for each in record.run.config.update}
            config["_id"], config["_name"] = record.run.run_id, record.run.display_name
        row = {".".join(each.nested_key) or each.key: json.loads(each.value_json) for each in record.history.item}
        for name, value in row.items():
            if not name.startswith("_"):
                history.setdefault(name, []).append((row["_step"], value))
        summary |= {each.key or ".".join(each.nested_key): each.value_json for each in record.summary.update}
    return config, history, summary


def test_wandb_has_the_recipe_every_step_and_evaluation(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    follow(WandbRun(WandbConfig(project="p", mode="offline")), folder, range(1, 4))
    config, history, summary = records_of_wandb(folder)
    assert history == EXPECTED
    assert config["training"] == {"steps": 3, "learning_rate": 1e-3}
    assert (config["_id"], config["_name"]) == ("ab" * 16, "mine")
    assert "proved" in summary["export/peft"]


def test_wandb_sends_nothing_where_offline_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    monkeypatch.delenv("WANDB_MODE")
    asked: list[Any] = []

    def init(**said: Any) -> Any:
        asked.append(said["mode"])
        raise RuntimeError("enough is known")

    monkeypatch.setattr(wandb, "init", init)
    for offline in (True, False):
        with no_network_if(offline), pytest.raises(RuntimeError, match="enough"):
            WandbRun(WandbConfig(project="p")).graftkit_run_started(RunInfo(tmp_path, RECIPE))
    assert asked == ["offline", None]


def test_the_end_of_wandbs_own_process_ends_no_run(tmp_path: Path) -> None:
    made = WandbRun(WandbConfig(project="p", mode="offline"))
    made.graftkit_run_started(RunInfo(tmp_path, RECIPE, "running", "ef" * 16))
    with pytest.MonkeyPatch.context() as patch, pytest.warns(RuntimeWarning, match="wandb takes no more") as told:
        patch.setattr(type(made._open), "log", lambda *given, **named: (_ for _ in ()).throw(ConnectionResetError()))
        for step in (1, 2):
            made.graftkit_step_finished(StepInfo(step, 3, 2.0, 100, 50, 0.5, 0.25, 1.5))
        made.graftkit_run_finished(RunInfo(tmp_path, RECIPE, "finished", "ef" * 16))
    assert len(told) == 1
    assert f"wandb sync {tmp_path}/wandb/offline-run-" in str(told[0].message)


def test_wandb_makes_no_links_which_keep_a_folder_from_being_overwritten(tmp_path: Path) -> None:
    follow(WandbRun(WandbConfig(project="p", mode="offline")), tmp_path, range(1, 2))
    assert not [path for path in (tmp_path / "wandb").iterdir() if path.is_symlink()]


@pytest.mark.parametrize("folder", ["../outside", "/tmp", ".", "a/b", "checkpoints", "Exports"])
def test_events_lie_in_a_folder_of_their_own_in_the_runs(folder: str) -> None:
    with pytest.raises(ValidationError):
        TensorBoardConfig(folder=folder)


def test_the_folders_that_a_run_writes_hold_no_events() -> None:
    named = {name for path in OWN.pattern.split("|") if (name := path.replace("\\", "")).replace("-", "").isalpha()}
    assert set(_RUNS_OWN) <= named


def test_events_wait_a_second_for_the_disk_so_that_a_killed_run_has_them(tmp_path: Path) -> None:
    made, run = TensorBoard(TensorBoardConfig(folder="tb")), RunInfo(tmp_path, RECIPE, "running", "ab" * 16)
    for step in (1, 2, 3):
        made.graftkit_step_finished(run, StepInfo(step, 3, 2.0 / step, 100, 50, 0.5, 0.25, 1.5))
    (file,) = (tmp_path / "tb").iterdir()
    ended = time.monotonic() + 30
    while file.read_bytes().count(b"train/loss") < 3:
        assert time.monotonic() < ended
        time.sleep(0.05)
    made.graftkit_run_finished()


@pytest.mark.parametrize(
    "uri",
    [
        "http://me:hunter2@localhost:5000",
        "https://hunter2@localhost",
        "postgresql://me:hunter2@localhost/runs",
        "http://localhost:5000/?access_token=hunter2",
    ],
)
def test_an_address_with_a_password_is_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(ValidationError, match="MLFLOW_TRACKING_PASSWORD") as raised:
        MlflowConfig(experiment="e", tracking_uri=uri)
    assert "hunter2" not in raised.value.errors()[0]["msg"]
    assert MlflowConfig(experiment="e", tracking_uri="postgresql://me@localhost/runs?sslkey=me.pem").tracking_uri


def test_a_password_that_a_variable_says_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:hunter2@127.0.0.1:9")
    with pytest.raises(RunError, match="MLflow can't be told") as raised:
        MlflowRun(MlflowConfig(experiment="e")).graftkit_run_started(RunInfo(tmp_path, RECIPE, "running", "ab" * 16))
    assert "hunter2" not in "".join(traceback.format_exception(raised.value))


def mlflow_runs(experiment: str) -> list[Any]:
    from mlflow import MlflowClient

    client = MlflowClient()
    return list(client.search_runs([client.get_experiment_by_name(experiment).experiment_id]))


def history_of_mlflow(run: Any) -> dict[str, list[tuple[int, float]]]:
    from mlflow import MlflowClient

    client = MlflowClient()
    return {
        name: [(each.step, each.value) for each in client.get_metric_history(run.info.run_id, name)]
        for name in run.data.metrics
    }


def test_mlflow_has_the_recipe_every_step_and_evaluation(tmp_path: Path) -> None:
    follow(MlflowRun(MlflowConfig(experiment="e", name="mine")), tmp_path, range(1, 4))
    (run,) = mlflow_runs("e")
    assert history_of_mlflow(run) == EXPECTED
    assert run.data.params == {
        "training.steps": "3",
        "training.learning_rate": "0.001",
        "adapter.rank_pattern": "{'^q.*': 8}",
        "export.0.use": "peft",
    }
    assert (run.info.run_name, run.info.status, run.data.tags["export.peft"]) == ("mine", "FINISHED", "proved")


def test_a_resumed_run_is_the_same_one_to_mlflow(tmp_path: Path) -> None:
    config = MlflowConfig(experiment="e")
    follow(MlflowRun(config), tmp_path, range(1, 3), status="interrupted")
    assert [run.info.status for run in mlflow_runs("e")] == ["KILLED"]
    follow(MlflowRun(config), tmp_path, range(3, 4))
    (run,) = mlflow_runs("e")
    assert run.info.status == "FINISHED"
    assert history_of_mlflow(run) == EXPECTED


def test_steps_that_a_resumed_run_takes_anew_are_not_told_twice(tmp_path: Path) -> None:
    """Their losses are the same bit for bit, their tokens a second are not; a step that is another one is told."""
    config, run = MlflowConfig(experiment="e"), RunInfo(tmp_path, RECIPE, "running", "ab" * 16)
    follow(MlflowRun(config), tmp_path, range(1, 4), status="interrupted")
    made = MlflowRun(config)
    made.graftkit_run_started(run)
    for step, loss in ((2, 1.0), (3, 0.6), (4, 0.5)):
        made.graftkit_step_finished(StepInfo(step, 4, loss, 100, 50, 0.125, 0.25, 1.5))
    made.graftkit_evaluation_finished(EvaluationInfo("before", 0, 2.5, 1.25))
    made.graftkit_run_finished(RunInfo(tmp_path, RECIPE, "finished", "ab" * 16))
    (found,) = mlflow_runs("e")
    told = history_of_mlflow(found)
    assert told["train/loss"] == [(1, 2.0), (2, 1.0), (3, 2.0 / 3), (3, 0.6), (4, 0.5)]
    assert told["train/tokens_per_second"] == [(1, 200.0), (2, 200.0), (3, 200.0), (3, 800.0), (4, 800.0)]
    assert told["holdout/loss"] == [(0, 2.5)]


def test_numbers_whose_names_mlflow_refuses_stay_apart(tmp_path: Path) -> None:
    long = "long" * 100
    scores = {"at@5": 0.1, "at+5": 0.2, "at_5": 0.3, f"{long}1": 0.4, f"{long}2": 0.5}
    made = MlflowRun(MlflowConfig(experiment="e"))
    made.graftkit_run_started(RunInfo(tmp_path, RECIPE, "running", "ab" * 16))
    made.graftkit_evaluation_finished(EvaluationInfo("after", 3, 0.5, scores=scores))
    made.graftkit_run_finished(RunInfo(tmp_path, RECIPE, "finished", "ab" * 16))
    (found,) = mlflow_runs("e")
    told = {name: value for name, ((_, value),) in history_of_mlflow(found).items()}
    assert sorted(told.values()) == [0.1, 0.2, 0.3, 0.4, 0.5, 0.5]
    assert (told["holdout/at_5"], told["holdout/at_5_2"], told["holdout/at_5_3"]) == (0.3, 0.1, 0.2)


class Waiting(BaseHTTPRequestHandler):
    """Asks whoever comes to come again in an hour."""

    def do_GET(self) -> None:
        self.send_response(429)
        self.send_header("Retry-After", "3600")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *given: Any) -> None:
        pass


def test_a_server_that_wants_to_be_asked_later_keeps_no_run_from_stopping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_run, "_SECONDS_TO_BEGIN", 0.5)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Waiting)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made = MlflowRun(MlflowConfig(experiment="e", tracking_uri=f"http://127.0.0.1:{server.server_port}"))
    start = time.monotonic()
    with pytest.raises(RunError, match="MLflow can't be told of the run: it has not answered within"):
        made.graftkit_run_started(RunInfo(tmp_path, RECIPE, "running", "ab" * 16))
    assert time.monotonic() - start < 10
    server.shutdown()
    server.server_close()


def test_a_run_that_names_mlflow_prints_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow prints where a run is shown, by the names that the server gives it, in the thread that ends it."""
    said: list[str | None] = []

    def ended(*given: Any, **named: Any) -> None:
        said.append(os.environ.get("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"))

    monkeypatch.setattr("mlflow.MlflowClient.set_terminated", ended)
    follow(MlflowRun(MlflowConfig(experiment="e")), tmp_path, range(1, 2))
    assert said == ["true"]
    assert "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT" not in os.environ


def test_a_run_that_is_resumed_otherwise_says_which_parameters_stay(tmp_path: Path) -> None:
    made, recipe = MlflowRun(MlflowConfig(experiment="e")), {**RECIPE, "data": {"a//b": 1}}
    for steps in (3, 5):
        run = RunInfo(tmp_path, {**recipe, "training": {"steps": steps}}, "running", "ab" * 16)
        told = pytest.warns(RuntimeWarning, match=r"as they were when the run began: training.steps, now 5$")
        with told if steps == 5 else nullcontext():
            made.graftkit_run_started(run)
        made.graftkit_run_finished(RunInfo(tmp_path, recipe, "finished", "ab" * 16))
    (kept,) = mlflow_runs("e")
    assert (kept.data.params["training.steps"], kept.data.params["data"]) == ("3", "{'a//b': 1}")


def test_mlflow_is_imported_without_telling_its_makers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY", raising=False)
    from mlflow.exceptions import MlflowException

    asked: list[str | None] = []

    class Client:
        def __init__(self, **named: Any) -> None:
            asked.append(os.environ.get("MLFLOW_DISABLE_TELEMETRY"))
            raise MlflowException("enough is known")

    monkeypatch.setattr("mlflow.MlflowClient", Client)
    with pytest.raises(RunError, match="enough"):
        MlflowRun(MlflowConfig(experiment="e")).graftkit_run_started(RunInfo(tmp_path, RECIPE))
    assert asked == ["true"]
    assert "MLFLOW_DISABLE_TELEMETRY" not in os.environ


def test_numbers_that_mlflow_refuses_are_told_and_stop_no_run(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    made = MlflowRun(MlflowConfig(experiment="e"))
    made.graftkit_run_started(RunInfo(tmp_path, RECIPE, "running", "cd" * 16))
    MlflowClient().delete_run(mlflow_runs("e")[0].info.run_id)
    made.graftkit_step_finished(StepInfo(1, 3, 2.0, 100, 50, 0.5, 0.25, 1.5))
    with pytest.warns(RuntimeWarning, match="MLflow did not take something, which the run's folder has: ") as told:
        made.graftkit_run_finished(RunInfo(tmp_path, RECIPE, "finished", "cd" * 16))
    assert len(told) == 2  # the numbers, and that the run has ended


def test_a_server_that_answers_no_more_keeps_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of numbers, of an export's proof or of the run's end: MLflow asks a server again for minutes."""
    monkeypatch.setattr("graftkit_callbacks.mlflow_run._SECONDS", 0.5)
    answers = threading.Event()
    for name in ("log_batch", "set_tag", "set_terminated"):
        monkeypatch.setattr(f"mlflow.MlflowClient.{name}", lambda *given, **named: answers.wait(20))
    made, run = MlflowRun(MlflowConfig(experiment="e")), RunInfo(tmp_path, {}, "running", "ef" * 16)
    made.graftkit_run_started(run)
    start = time.monotonic()
    made.graftkit_export_finished(ExportInfo("peft", "peft", tmp_path, {"status": "proved"}))
    with pytest.warns(RuntimeWarning, match="MLflow has not taken all within"):
        made.graftkit_run_finished(RunInfo(tmp_path, {}, "finished", "ef" * 16))
    assert time.monotonic() - start < 5
    answers.set()


def test_a_sender_hands_on_all_in_order_and_keeps_what_went_wrong() -> None:
    sent: list[list[int]] = []

    def send(numbers: Any) -> None:
        if 3 in numbers:
            raise ValueError("three")
        sent.append(list(numbers))

    sender: Sender[int] = Sender(send, at_most=2)
    for number in (1, 2):
        sender.put([number])
    assert sender.close(10)
    assert [each for some in sent for each in some] == [1, 2]
    assert max(map(len, sent)) <= 2
    failing: Sender[int] = Sender(send, at_most=1)
    failing.put([3, 4])
    assert failing.close(10, last=lambda: sent.append([]))
    assert sent[-2:] == [[4], []]
    assert [str(error) for error in failing.errors()] == ["three"]
    assert failing.errors() == []


def test_all_three_are_told_what_a_run_measured(tiny_model: Path, chat_records: Path, tmp_path: Path) -> None:
    recipe = {
        "model": str(tiny_model),
        "data": {"train": str(chat_records), "holdout": 0.1, "max_length": 64},
        "adapter": {"use": "lora", "rank": 4},
        "training": {"steps": 3, "tokens_per_step": 256, "device": "cpu"},
        "evaluation": {"every": 2},
        "plugins": {
            "tensorboard": {"folder": "tensorboard"},
            "wandb": {"project": "p", "mode": "offline"},
            "mlflow": {"experiment": "e"},
        },
    }
    found = graftkit.run(recipe, out=tmp_path / "run")
    assert not [notice for notice in found.manifest["notices"] if "plugin" in notice]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    assert [step for step, _ in losses] == [1, 2, 3]
    before, after = (found.metrics[moment]["holdout_loss"] for moment in ("before", "after"))
    _, of_wandb, _ = records_of_wandb(tmp_path / "run")
    (of_mlflow,) = mlflow_runs("e")
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    for told in (of_wandb, history_of_mlflow(of_mlflow), events_of(file)):
        assert told["train/loss"] == losses
        assert told["holdout/loss"] == [(0, before), (3, after)]
        assert [step for step, _ in told["eval/loss"]] == [2, 3]
    assert of_mlflow.data.tags["graftkit.run_id"] == found.manifest["id"]
    said = RunManifest.read(tmp_path / "run")
    assert said is not None and others_files(tmp_path / "run", said) == [], "or --overwrite refuses"


def test_a_server_that_is_not_there_stops_the_run_at_its_start_and_says_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    run = RunInfo(tmp_path, RECIPE, "running", "ab" * 16)
    with pytest.raises(RunError, match="MLflow can't be told of the run") as raised:
        MlflowRun(MlflowConfig(experiment="e", tracking_uri="http://127.0.0.1:9")).graftkit_run_started(run)
    assert "Start the server" in raised.value.hint and "plugins.mlflow.tracking_uri" in raised.value.hint
    with pytest.raises(RunError, match="wandb can't be told of the run") as raised:
        WandbRun(WandbConfig(project="p", mode="online")).graftkit_run_started(run)
    assert "wandb login" in raised.value.hint


@pytest.mark.parametrize(("installed", "remedy"), [(False, "`pip install mlflow`"), (True, "sqlite:///mlflow.db")])
def test_a_store_that_this_mlflow_cannot_write_says_what_to_install(
    installed: bool, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> str:
        if name == "mlflow" and not installed:
            raise PackageNotFoundError(name)
        return "3.0"

    monkeypatch.setattr(mlflow_run, "version", found)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    run = RunInfo(tmp_path, RECIPE, "running", "ab" * 16)
    with pytest.raises(RunError, match="MLflow can't be told of the run: \\S") as raised:
        MlflowRun(MlflowConfig(experiment="e")).graftkit_run_started(run)
    assert remedy in raised.value.hint and "plugins.mlflow.tracking_uri" in raised.value.hint
