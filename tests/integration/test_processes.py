"""Several processes train what one trains, to float32 rounding, and tell which of them failed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import graftkit
import pytest
import torch
import yaml
from click.testing import CliRunner
from graftkit.cli import processes
from graftkit.cli import run as run_command
from graftkit.errors import ProcessError, RecipeError
from graftkit.flow.preparation.check_model import of_this_process
from graftkit.flow.state.cancel import CancelToken
from graftkit.testing import tiny_model_folder
from graftkit.training.process_group import ProcessGroup
from safetensors.torch import load_file
from started_together import Started, start_together

SHORT = {
    "training": {
        "steps": 5,
        "tokens_per_step": 400,
        "microbatch_tokens": 64,
        "learning_rate": 1e-2,
        "device": "cpu",
        "max_grad_norm": 0.5,
    }
}
RECIPES: Mapping[str, Mapping[str, Any]] = {
    "dropout and new rows": {
        "adapter": {"use": "lora", "rank": 4, "dropout": 0.2},
        "tokenizer": {"extend": {"tokens": 40}},
        "evaluation": {"every": 2},
    },
    "pairs": {"objective": "dpo"},
    "divergence over all examples": {"objective": "kto"},
    "a teacher": {"objective": {"use": "distill", "teacher": "TEACHER", "top_k": 12}},
    "answers that are sampled": {
        "objective": {"use": "grpo", "group_size": 4, "max_new_tokens": 6, "beta": 0.1, "temperature": 0.9}
        | {"num_iterations": 2, "epsilon": 0.01},
        "evaluation": {"metrics": {"use": "regex", "pattern": "[aeiou]"}, "every": 2},
        "adapter": {"use": "lora", "rank": 4, "dropout": 0.2},
    },
    "a start that is observed": {"adapter": {"use": "lora", "rank": 4, "init": "eva", "eva_tokens": 512}},
    "vectors": {"objective": "embedding", "evaluation": {"every": 2}},
    "vectors by numbers": {"objective": "similarity"},
    "a head": {"objective": "reward", "memory": {"checkpoint": "blocks"}},
}
AGREE = 5e-4
"""How far parameters may differ, relative to their largest. Numbers in float32 are added in another order, by which
gradients differ by a millionth or so; Adam divides each by its own size, which tells more of the smallest ones."""


@pytest.fixture
def write(make_recipe: Any, tmp_path: Path) -> Callable[..., str]:
    """Writes a recipe and its records, of lengths that no number of processes shares evenly; returns its path."""

    def make(**sections: Any) -> str:
        objective, records = sections.get("objective", "sft"), tmp_path / "records.jsonl"
        if isinstance(objective, dict):
            if "teacher" in objective:
                teacher = str(tiny_model_folder(tmp_path / "teacher", seed=1, num_hidden_layers=3))
                sections["objective"] = {**objective, "teacher": teacher}
            objective = "sft"  # the same records
        with records.open("w") as file:
            for n in range(50):
                good, bad = f"{n}! " * (1 + n % 4), f"no {n}. " * (1 + n % 3)
                answers: Mapping[str, Any] = {
                    "sft": {"completion": good},
                    "dpo": {"chosen": good, "rejected": bad},
                    "reward": {"chosen": good, "rejected": bad},
                    "kto": {"completion": bad if n % 3 else good, "label": not n % 3},
                    "embedding": {"positive": good, "negative": bad},
                    "similarity": {"sentence2": good, "score": n % 7 / 3},
                }[objective]
                asked = {"embedding": "query", "similarity": "sentence1"}.get(objective, "prompt")
                file.write(json.dumps({asked: f"say {n} " + "or so " * (n % 6), **answers}) + "\n")
        path, data = tmp_path / "recipe.yaml", {"train": str(records), "holdout": 0.1, "max_length": 128}
        path.write_text(yaml.safe_dump(make_recipe(**{"data": data, **SHORT, **sections})))
        return str(path)

    return make


def together(count: int, recipe: str, out: Path, *more: str) -> list[tuple[int, str]]:
    return start_together(count, ["run", recipe, "--out", str(out), *more], out.parent).wait()


def trained(out: Path) -> dict[str, torch.Tensor]:
    """Returns the last checkpoint's parameters and moments."""
    (last,) = sorted((out / "checkpoints").iterdir())[-1:]
    return load_file(next(last.glob("*.safetensors")))


def curve(out: Path) -> list[float]:
    """Returns loss and gradient norm of each step: what a wrong divisor would change, whatever the optimizer does."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [number for line in lines if "loss" in line for number in (line["loss"], line["gradient_norm"])]


def evaluated(out: Path) -> dict[str, float]:
    """Returns every number that was measured on the holdout records: before, while, and after training."""
    found = {
        f"{when} {name}": value
        for when, facts in json.loads((out / "manifest.json").read_text())["metrics"].items()
        for name, value in {**facts, **facts.get("metrics", {})}.items()
        if isinstance(value, float) and name != "seconds"
    }
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return found | {f"after step {line['step']}": line["holdout_loss"] for line in lines if "holdout_loss" in line}


def difference(found: Mapping[str, torch.Tensor], wanted: Mapping[str, torch.Tensor]) -> float:
    """Returns by how much parameters differ at most, relative to the largest number of each."""
    assert found.keys() == wanted.keys()
    return max(
        float((found[name] - wanted[name]).abs().max() / wanted[name].abs().max().clamp_min(1e-6))
        for name in wanted
        if name.startswith("parameter.")
    )


@pytest.mark.parametrize("name", RECIPES)
def test_any_number_of_processes_trains_the_same(name: str, write: Callable[..., str], tmp_path: Path) -> None:
    recipe = write(**RECIPES[name])
    graftkit.run(recipe, out=tmp_path / "one")
    one = trained(tmp_path / "one")
    for count in (2, 4) if name == "dropout and new rows" else (3,):
        ended = together(count, recipe, tmp_path / f"{count}")
        assert [code for code, _ in ended] == [0] * count, ended
        assert difference(trained(tmp_path / f"{count}"), one) < AGREE
        assert curve(tmp_path / f"{count}") == pytest.approx(curve(tmp_path / "one"), rel=2e-5)
        measured, alone = evaluated(tmp_path / f"{count}"), evaluated(tmp_path / "one")
        assert measured == pytest.approx(alone, rel=1e-3 if "head" in name else 1e-4, abs=1e-6)
        before = [name for name in alone if name.startswith("before ")]
        assert before and [measured[name] for name in before] == [alone[name] for name in before]


def test_the_same_number_of_processes_trains_the_same_bits(write: Callable[..., str], tmp_path: Path) -> None:
    recipe = write(**RECIPES["dropout and new rows"])
    for out in ("first", "second"):
        together(3, recipe, tmp_path / out)
    first, second = trained(tmp_path / "first"), trained(tmp_path / "second")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_run_goes_on_with_another_number_of_processes(write: Callable[..., str], tmp_path: Path) -> None:
    recipe, out = write(**RECIPES["dropout and new rows"]), tmp_path / "parts"
    graftkit.run(recipe, out=tmp_path / "one")
    schedule = ["--set", "training.schedule=constant", "--set", "training.warmup=0"]
    graftkit.run(recipe, out=tmp_path / "whole", overrides=schedule[1::2])
    for count, steps in ((3, 2), (2, 4), (1, 5)):
        ended = together(count, recipe, out, *schedule, "--set", f"training.steps={steps}", "--resume")
        assert [code for code, _ in ended] == [0] * count, ended
    assert difference(trained(out), trained(tmp_path / "whole")) < AGREE


def test_a_run_of_sampled_answers_goes_on_to_the_same_bits(write: Callable[..., str], tmp_path: Path) -> None:
    """It stops between two steps that learn from the same answers, of which each process has computed some."""
    recipe = write(**RECIPES["answers that are sampled"])
    constant = ["--set", "training.schedule=constant", "--set", "training.warmup=0"]
    for out, steps in (("whole", 4), ("parts", 3), ("parts", 4)):
        ended = together(2, recipe, tmp_path / out, *constant, "--set", f"training.steps={steps}", "--resume")
        assert [code for code, _ in ended] == [0, 0], ended
    whole, parts = trained(tmp_path / "whole"), trained(tmp_path / "parts")
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert curve(tmp_path / "parts") == curve(tmp_path / "whole")


def test_each_that_goes_on_knows_the_losses_before(write: Callable[..., str], tmp_path: Path) -> None:
    """One that knew the last steps alone would take a rise of the loss among them for divergence, and stop all."""
    strict = {"divergence_factor": 1.001, "divergence_window": 1, "schedule": "constant", "warmup": 0}
    recipe, out = write(training={**SHORT["training"], **strict}), tmp_path / "parts"
    for steps in (4, 6):
        ended = together(2, recipe, out, "--set", f"training.steps={steps}", "--resume")
        assert [code for code, _ in ended] == [0, 0], ended
    losses = curve(out)[::2]
    assert max(losses) == losses[0] and losses[5] > 1.001 * losses[4], losses


def test_the_command_starts_them_by_torchrun(write: Callable[..., str], tmp_path: Path) -> None:
    def toolkit(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-P", "-m", "graftkit", *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    for name in ("graftkit", "torch", "yaml"):  # as lie in the folder of a data set, perhaps
        (tmp_path / f"{name}.py").write_text("import pathlib\npathlib.Path('executed').touch()\n")

    recipe = write(export=["peft"], training={**SHORT["training"], "microbatch_tokens": 400})
    done = toolkit("run", recipe, "--out", "out", "--processes", "2", "--json")
    assert done.returncode == 0, done.stderr
    manifest = json.loads(done.stdout)
    assert manifest["exports"]["peft"]["proof"]["status"] == "proved"
    assert done.stderr.count("training ...") == 1 and "run_id" not in done.stderr
    assert not (tmp_path / "executed").exists()
    assert "a step has 1 passes at most, so that 1 of 2 processes have nothing to do" in done.stderr


LONG = ["--set", "training.steps=5000"]


def stop(started: Started, out: Path, rank: int, number: int) -> list[tuple[int, str]]:
    """Sends a process a signal once a step has been taken."""
    end = time.monotonic() + 60
    metrics = out / "metrics.jsonl"
    while time.monotonic() < end and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    time.sleep(0.2)
    started.processes[rank].send_signal(number)
    return started.wait()


@pytest.mark.parametrize(
    "number, said",
    [
        (signal.SIGKILL, "the process of rank 1 (of 2) is gone"),
        (signal.SIGTERM, "the process of rank 1 (of 2): stopped by SIGTERM"),
    ],
)
def test_who_has_ended_is_named_and_nothing_is_lost(
    write: Callable[..., str], tmp_path: Path, number: int, said: str
) -> None:
    recipe, out = write(), tmp_path / "out"
    started = start_together(2, ["run", recipe, "--out", str(out), *LONG], tmp_path)
    begun = time.monotonic()
    (code, told), (other, _) = stop(started, out, 1, number)
    assert code == 1 and other != 0 and said in told and told.count("error: ") == 1
    assert "--processes 2 --resume" in told
    assert time.monotonic() - begun < 60
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    (kept,) = (out / "checkpoints").iterdir()
    assert kept.name == f"step-{steps[-1]:08d}"


PATCHED = """
import os, resource, signal, sys, time
from graftkit.training import process_group
process_group.GONE_SECONDS = process_group.HUNG_SECONDS = 6.0
rank = os.environ["RANK"]
{}
from graftkit.cli.main import main
main()
"""
"""A command that waits for others for six seconds alone; what is put in the middle is what goes wrong."""
HANGS = """
from graftkit.training.loop import Trainer
take = Trainer._take_step
Trainer._take_step = lambda self, *a: time.sleep(60) if rank == "1" and self.step == 2 else take(self, *a)
"""
FULL = """
if rank == "0":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
"""
OTHER = """
import graftkit._version
if rank == "1":
    graftkit._version.__version__ = "99.0"
"""
ENDS = """
from graftkit.training.loop import Trainer
def end(*arguments):
    sys.exit(0)
if rank == "0":
    Trainer._take_step = end
"""


def go_wrong(what: str, recipe: str, out: Path, *more: str) -> Started:
    program = ("-c", PATCHED.format(what))
    return start_together(2, ["run", recipe, "--out", str(out), *more], out.parent, program=program, store_apart=True)


def test_one_that_is_stopped_or_hangs_is_named(write: Callable[..., str], tmp_path: Path) -> None:
    """A stopped one says nothing any more; one that hangs lives, and is the one that does not wait."""
    recipe = write()
    stopped, hanging = (
        go_wrong(what, recipe, tmp_path / out, *LONG) for out, what in (("stopped", ""), ("hanging", HANGS))
    )
    metrics, end = tmp_path / "stopped" / "metrics.jsonl", time.monotonic() + 60
    while time.monotonic() < end and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    stopped.processes[1].send_signal(signal.SIGSTOP)
    told = []
    for started in (stopped, hanging):
        first, other = started.processes
        told.append(first.communicate(timeout=60)[1])
        assert first.returncode == 1 and told[-1].count("error: ") == 1
        other.kill()
        other.communicate()
    assert "the process of rank 1 (of 2) is gone: it has said nothing for 6 s" in told[0]
    assert "the process of rank 1 (of 2) hangs: the others have waited" in told[1]


@pytest.mark.parametrize(
    ("what", "said"),
    [(FULL, "No larger file is allowed there"), (OTHER, "rank 1 (of 2) has another version of graftkit than rank 0's")],
)
def test_a_full_disk_or_another_version_is_told_once(
    write: Callable[..., str], tmp_path: Path, what: str, said: str
) -> None:
    (code, told), (_, other) = go_wrong(what, write(), tmp_path / "out").wait(60)
    assert code != 0 and said in told and told.count("error: ") == 1 and "error: " not in other


def test_processes_that_end_well_and_leave_no_run_are_an_error(
    write: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*more: str) -> Any:
        return CliRunner().invoke(run_command.command, [recipe, "--out", str(out), "--processes", "2", *more])

    recipe, out = write(), tmp_path / "out"
    ended = go_wrong(ENDS, recipe, out).wait(60)
    assert [code for code, _ in ended] == [0, 0]  # as where a plugin calls sys.exit
    monkeypatch.setattr(run_command, "start", lambda count, arguments: 0)
    done = run()
    assert isinstance(done.exception, ProcessError) and "have left no finished run in" in str(done.exception)
    graftkit.run(recipe, out=out, resume=True)
    assert run().exit_code == 0
    assert isinstance(run("--overwrite").exception, ProcessError)  # that run is the one from before


def test_that_of_rank_0_is_missed_too(write: Callable[..., str], tmp_path: Path) -> None:
    recipe, out = write(), tmp_path / "out"
    started = start_together(3, ["run", recipe, "--out", str(out), *LONG], tmp_path)
    _, (code, told), (_, silent) = stop(started, out, 0, signal.SIGKILL)
    assert code == 1 and "the process of rank 0 (of 3) is gone" in told and "error" not in silent


@pytest.mark.parametrize(
    "more, said",
    [
        (["--set", "training.learning_rate=1e-3"], "has another recipe than rank 0's"),
        (["--set", "model=nowhere"], "nowhere"),
    ],
)
def test_one_that_was_started_otherwise_is_named(
    write: Callable[..., str], tmp_path: Path, more: Sequence[str], said: str
) -> None:
    recipe, out = write(), tmp_path / "out"
    started = start_together(2, ["run", recipe, "--out", str(out)], tmp_path, {1: more})
    (code, told), (_, other) = started.wait()
    assert code != 0 and "the process of rank 1 (of 2)" in told and said in told and "error: " not in other


def test_what_each_process_would_find_for_itself_is_refused(write: Callable[..., str], tmp_path: Path) -> None:
    training = {**SHORT["training"], "dtype": "auto"}
    started = start_together(2, ["run", write(training=training), "--out", str(tmp_path / "out")], tmp_path)
    (code, told), _ = started.wait()
    assert code == 2 and "recipe.yaml:" in told and "training.dtype can't be auto where several processes" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("none_ignored")
@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_waits_for_others_says_so(write: Callable[..., str], tmp_path: Path, rank: int) -> None:
    """As in a shell where another program has left the variables."""
    started = start_together(2, ["run", write(), "--out", str(tmp_path / "out")], tmp_path, ranks=[rank])
    (process,) = started.processes
    assert process.stderr is not None
    told = process.stderr.readline()
    assert "waiting for another process, for 5 minutes at most" in told
    assert f"RANK={rank}, WORLD_SIZE=2, MASTER_ADDR=localhost" in told and "unset RANK WORLD_SIZE MASTER_ADDR" in told
    process.send_signal(signal.SIGINT)
    ((code, _),) = started.wait(20)
    assert code == 130


def test_others_that_do_not_come_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MEETING_SECONDS", 0.3)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    for name, value in {"RANK": "1", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    place = processes.place_of(os.environ)
    assert place is not None
    missed = pytest.raises(ProcessError, match=r"did not come within .* s: RANK=1, WORLD_SIZE=3")
    with missed as raised, processes.joined(place, CancelToken()):
        pass
    assert "unset RANK WORLD_SIZE MASTER_ADDR" in raised.value.hint


def announce(group: ProcessGroup) -> None:
    """Until the broken connection is noticed: what was written first is lost without a word."""
    for _ in range(100):
        group.announce({})
        time.sleep(0.01)


NEEDS_THE_STORE: Mapping[str, Callable[[ProcessGroup], object]] = {
    "a value of each": lambda group: group.gather(1),
    "what comes next": announce,
}


@pytest.mark.parametrize("needing", NEEDS_THE_STORE)
@pytest.mark.parametrize(
    ("place", "said"),
    [
        (processes.Place(0, 3, 3, store_apart=True), "what started this process.* is gone"),
        (processes.Place(1, 3, 3, store_apart=True), ""),
        (processes.Place(1, 3, 3), r"the process of rank 0 \(of 3\) is gone: the store"),
        (processes.Place(2, 3, 3), ""),
    ],
)
def test_whoever_keeps_the_store_is_missed_by_one_whatever_it_needed(
    monkeypatch: pytest.MonkeyPatch, place: processes.Place, said: str, needing: str
) -> None:
    kept = [torch.distributed.TCPStore("localhost", 0, is_master=True, wait_for_workers=False)]
    store = torch.distributed.TCPStore("localhost", kept[0].port, is_master=False, wait_for_workers=False)
    monkeypatch.setattr(processes, "_store_of_all", lambda place, cancel: store)
    told = pytest.raises(ProcessError, match=said) if said else pytest.raises(SystemExit)
    with told, processes.joined(place, CancelToken()) as group:
        kept.clear()
        NEEDS_THE_STORE[needing](group)


def test_a_port_that_another_program_uses_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as used:
        used.bind(("", 0))
        used.listen()
        port = str(used.getsockname()[1])
        for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        met = pytest.raises(ProcessError, match=rf"could not meet the others \(RANK=0.*MASTER_PORT={port}\)")
        with met, processes.joined(processes.Place(0, 2, 2), CancelToken()):
            pass


@pytest.mark.parametrize(
    "local, seen, by_torchrun, wanted", [(1, 2, True, 1), (3, 1, False, 0), (2, 2, False, None), (1, 1, True, None)]
)
def test_processes_do_not_share_a_device_unasked(
    monkeypatch: pytest.MonkeyPatch, local: int, seen: int, by_torchrun: bool, wanted: int | None
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    monkeypatch.setenv("LOCAL_RANK", str(local))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    if by_torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    if wanted is not None:
        assert of_this_process(torch.device("cuda")) == torch.device("cuda", wanted)
        return
    with pytest.raises(RecipeError, match=rf"process {local + 1} of this machine, and it sees {seen} CUDA device"):
        of_this_process(torch.device("cuda"))
