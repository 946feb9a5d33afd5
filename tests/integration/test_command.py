"""The command as a user types it: output, signals, exit codes."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from graftkit.cli.progress import LiveBars, PlainLines
from graftkit.cli.signals import cancel_on_signals
from graftkit.cli.training_line import time_left
from graftkit.flow.events import Notice, PassFinished, StageFinished, StageStarted, StepFinished
from graftkit.host.host import PluginHost
from graftkit.host.lifecycle import StepInfo
from stopping_signals import STOPPING

TOOLKIT = [sys.executable, "-m", "graftkit"]


@pytest.fixture
def recipe_file(make_recipe: Any, tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    evaluation = {"answers": 2, "max_new_tokens": 4}
    path.write_text(yaml.safe_dump(make_recipe(export=["merged"], evaluation=evaluation)))
    return path


def toolkit(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*TOOLKIT, *arguments], capture_output=True, text=True, cwd=cwd)


@pytest.mark.fresh_children
def test_a_run_ends_with_a_table_and_two_commands_that_work(recipe_file: Path, tmp_path: Path) -> None:
    done = toolkit("run", "job.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "holdout loss" in done.stdout and "before" in done.stdout and "% " not in done.stderr
    assert "proved: logits within" in done.stdout and "claims: loaded with transformers" in done.stdout
    assert "8.6" in done.stdout
    manifest = json.loads((tmp_path / "runs/job/manifest.json").read_text())
    steps = [json.loads(line)["seconds"] for line in (tmp_path / "runs/job/metrics.jsonl").read_text().splitlines()]
    assert f" in {sum(steps):.0f} s of training\n" in done.stdout and sum(steps) < manifest["seconds"] / 2
    assert "step 6/6  loss" in done.stderr and "tokens/s" in done.stderr and "\x1b" not in done.stderr
    following = [line.strip() for line in done.stdout.partition("Next:")[2].strip().splitlines()]
    assert [line.split()[1] for line in following] == ["generate", "verify"]
    for line in following:
        again = subprocess.run(
            f"{sys.executable} -m graftkit{line.removeprefix('toolkit')}",
            shell=True,
            capture_output=True,
            text=True,
            cwd=tmp_path,
        )
        assert again.returncode == 0, again.stderr


def test_the_quickstart_is_ones_own_by_changing_two_lines(tiny_model: Path, chat_records: Path, tmp_path: Path) -> None:
    quickstart = (Path(__file__).parents[2] / "fixtures" / "quickstart.yaml").read_text()
    lines = quickstart.splitlines()
    (model,) = (n for n, line in enumerate(lines) if line.startswith("model:"))
    (data,) = (n for n, line in enumerate(lines) if line.startswith("data:"))
    lines[model] = f"model: {tiny_model}"
    lines[data] = "data: {train: records.jsonl}"
    (tmp_path / "mine.yaml").write_text("\n".join(lines))
    done = toolkit("run", "mine.yaml", "--set", "training.steps=2", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "exact match (3 answers)" in done.stdout and done.stdout.count("proved: logits within") == 2


def test_json_is_one_object_and_the_only_output(recipe_file: Path, tmp_path: Path) -> None:
    done = toolkit("run", "job.yaml", "--out", "elsewhere", "--json", "--set", "export=[]", cwd=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["folder"] == "elsewhere" and facts["status"] == "finished"
    manifest = json.loads((tmp_path / "elsewhere" / "manifest.json").read_text())
    assert {key: facts[key] for key in manifest if key != "seconds"} == {
        key: value for key, value in manifest.items() if key != "seconds"
    }


@pytest.mark.usefixtures("none_ignored")
@pytest.mark.parametrize("number", STOPPING, ids=lambda number: number.name)
def test_a_signal_stops_the_run_and_its_folder_says_how_far_it_came(
    recipe_file: Path, tmp_path: Path, number: signal.Signals
) -> None:
    command = [*TOOLKIT, "run", "job.yaml", "--out", "out", "--set", "training.steps=100000"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "step 1/" in line:
                process.send_signal(number)
                break
        rest = process.stderr.read()
    assert process.returncode == 130
    assert f"stopped by {number.name}" in rest and "Traceback" not in rest
    command = "toolkit run job.yaml --out out --set training.steps=100000 --resume"
    assert f"\nGo on with the run in out: {command}\n" in rest
    assert_saved(tmp_path / "out")


def assert_saved(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["status"] == "interrupted" and manifest["progress"]["step"] >= 1
    assert (folder / "adapter" / "adapter.safetensors").exists() and list(folder.glob("checkpoints/step-*"))


@pytest.mark.usefixtures("none_ignored")
def test_a_terminal_that_is_closed_stops_the_run_as_a_signal_does(recipe_file: Path, tmp_path: Path) -> None:
    """The system tells the process once, and what it writes from then on fails."""
    import pty

    command = [*TOOLKIT, "run", "job.yaml", "--out", "out", "--set", "training.steps=100000"]
    start = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
    pid, terminal = pty.fork()
    if not pid:
        os.execv(sys.executable, [sys.executable, "-c", start, str(tmp_path), *command])
    seen = b""
    while b"/100000" not in seen:
        seen = seen[-100:] + os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 130
    assert_saved(tmp_path / "out")


def test_a_signal_that_is_ignored_stays_ignored_and_a_repeated_one_that_nobody_sent_on_purpose_changes_nothing() -> (
    None
):
    before = {sign: signal.signal(sign, signal.SIG_DFL) for sign in (signal.SIGXCPU, signal.SIGQUIT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with cancel_on_signals() as token:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not token.requested
            for _ in range(3):  # the system repeats it each second once a limit of CPU time is reached
                os.kill(os.getpid(), signal.SIGXCPU)
            assert token.requested
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGQUIT)
    finally:
        for sign, handler in before.items():
            signal.signal(sign, handler)


def test_a_run_without_an_export_names_the_command_that_adds_one_and_it_works(
    recipe_file: Path, tmp_path: Path
) -> None:
    done = toolkit("run", "job.yaml", "--out", "out", "--set", "export=[]", cwd=tmp_path)
    following = [line.strip() for line in done.stdout.partition("Next:")[2].strip().splitlines()]
    assert following[1] == "toolkit export out --to merged"
    added = toolkit(*following[1].split()[1:], cwd=tmp_path)
    assert added.returncode == 0, added.stderr
    assert "proved: logits within" in added.stdout and "step " not in added.stderr
    refused = toolkit("run", "job.yaml", "--out", "out", cwd=tmp_path)
    assert refused.returncode == 2 and "it holds a run (finished)" in refused.stderr
    assert "toolkit export out --to NAME" in refused.stderr
    assert "toolkit run job.yaml --out out --resume --set training.steps=MORE" in refused.stderr


def test_a_changed_export_is_noticed(recipe_file: Path, tmp_path: Path) -> None:
    toolkit("run", "job.yaml", "--out", "out", cwd=tmp_path)
    with (tmp_path / "out/exports/merged/config.json").open("a") as file:
        file.write(" ")
    done = toolkit("verify", "out/exports/merged", cwd=tmp_path)
    assert done.returncode == 1 and "config.json is changed" in done.stderr


def test_generate_says_what_it_can_not_load(tmp_path: Path) -> None:
    done = toolkit("generate", "nothing", "hello", cwd=tmp_path)
    assert done.returncode == 2 and "no such folder" in done.stderr


def test_preview_marks_what_is_learnt(recipe_file: Path, tmp_path: Path) -> None:
    done = toolkit("preview", "job.yaml", "--records", "1", cwd=tmp_path)
    assert "[!][<|im_end|>]" in done.stdout and "[user]" not in done.stdout


def test_preview_shows_lengths_one_record_and_authors(recipe_file: Path, tmp_path: Path) -> None:
    shown = toolkit("preview", "job.yaml", "--records", "1", cwd=tmp_path).stdout
    assert "tokens in " in shown and "are learnt; lengths:" in shown and "#" in shown
    place = shown.split("  (")[0]
    [line] = toolkit("preview", "job.yaml", "--where", Path(place).name, "--json", cwd=tmp_path).stdout.splitlines()
    found = json.loads(line)
    assert found["where"] == place and len(found["ids"]) == len(found["tokens"]) == len(found["loss_weight"])
    assert "".join(part["text"] for part in found["authors"]) == "".join(found["tokens"])
    assert {part["author"] for part in found["authors"]} >= {"template", "message 1 (user)", "message 2 (assistant)"}
    learnt = [token for token, weight in zip(found["tokens"], found["loss_weight"], strict=True) if weight]
    assert "".join(learnt).endswith("<|im_end|>")
    missing = toolkit("preview", "job.yaml", "--where", "nowhere.jsonl:7", cwd=tmp_path)
    assert missing.returncode == 2 and "there is no such record" in missing.stderr


@pytest.mark.parametrize(("name", "options"), [("preview", ["--records", "1"]), ("plan", [])])
def test_what_plugins_did_after_the_plan_is_told_and_nothing_twice(
    name: str, options: list[str], recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(f"graftkit.cli.{name}")
    whole = getattr(module, name)

    def noticed(recipe: str, *, host: PluginHost, **more: Any) -> Any:
        host.registry.plugins[0].notices.append("warned as the recipe was planned")
        found = whole(recipe, host=host, **more)
        host.registry.plugins[0].notices.append("warned as more was done")
        return found

    monkeypatch.setattr(module, name, noticed)
    done = CliRunner().invoke(module.command, [str(recipe_file), *options])
    assert done.exit_code == 0, done.output
    assert [done.output.count(f"note: warned as {when}") for when in ("the recipe", "more")] == [1, 1]


def step(number: int, of: int = 40) -> StepFinished:
    return StepFinished(StepInfo(number, of, 1.5, 100, 50, 2.0, 1e-4, 0.5))


def test_time_left_is_that_of_the_steps_to_come() -> None:
    assert time_left(step(10).step, 20.0, 10) == "1:00"
    assert time_left(step(1, 4000).step, 2.0, 1) == "2:13:18"
    assert time_left(step(31).step, 4.0, 2) == "0:18"


def test_a_run_that_goes_on_tells_the_time_left_by_its_own_steps(capsys: pytest.CaptureFixture[str]) -> None:
    """Two seconds a step: the steps that another process took say nothing of this one's speed."""
    lines = PlainLines()
    for number in range(31, 41):
        lines.show(step(number))
    output = capsys.readouterr().err.splitlines()
    assert [re.findall("[^ ]+ left", line) for line in output[:2]] == [["0:16 left"], ["0:12 left"]]


def test_a_long_step_tells_its_passes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("graftkit.cli.progress.time.monotonic", lambda: now)
    lines = PlainLines()
    for done in range(1, 8):
        now += 6.0
        lines.show(PassFinished(1, 40, done, 8))
    told = capsys.readouterr().err.splitlines()
    assert told == [f"  step 1/40: {done} of 8 passes" for done in (2, 4, 6)]


def test_a_bar_shows_the_passes_of_a_step() -> None:
    from rich.progress import Progress as Bars

    bars = Bars(disable=True)
    shown = LiveBars(bars)
    for event in (StageStarted("training"), step(3), PassFinished(4, 40, 2, 8)):
        shown.show(event)
    [task] = bars.tasks
    assert (task.total, task.completed, task.fields["text"]) == (40, 3.25, "step 4/40  2/8 passes")


def test_plain_lines_are_few(capsys: pytest.CaptureFixture[str]) -> None:
    lines = PlainLines()
    for event in [StageStarted("training"), Notice("training", "careful"), *(step(n) for n in range(1, 41))]:
        lines.show(event)
    lines.show(StageFinished("training", 80.0, {}))
    output = capsys.readouterr().err.splitlines()
    assert len(output) == 3 + 21
    assert output[1] == "training: note: careful"
    assert output[-2].startswith("  step 40/40  loss 1.5000  rate 1.0e-04  50 tokens/s  0:00 left  ")


def test_no_module_that_lies_in_the_current_folder_is_run(tmp_path: Path) -> None:
    """`python -m` puts the current folder before all others, and it may hold anybody's files."""
    for name in ("yaml", "pluggy", "pydantic", "pytest"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nraise SystemExit(9)\n")
    done = subprocess.run([*TOOLKIT, "schema"], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout) and not (tmp_path / "ran").exists()


def test_the_contracts_are_run_without_anybodys_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pytest looks for settings in the folders around a test file, such as /tmp, which name modules to import."""
    from graftkit.host.host import PluginHost
    from graftkit.scaffold.check import check_plugins, find_offers

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p strangers\npythonpath = .\n")
    for name in ("strangers", "pytest"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    providers = [registered for registered in find_offers(PluginHost(), "mean") if registered.provider.name == "mean"]
    assert check_plugins(providers, quiet=True) == 0 and not (tmp_path / "ran").exists()
