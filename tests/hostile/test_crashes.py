"""A machine that dies at any moment, a system that refuses any call: a run goes on as if nothing had happened."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import graftkit
import pytest
from graftkit.store.files import write_text
from graftkit.store.folders import atomic_folder
from graftkit.store.line_file import LineFile
from graftkit.store.temporaries import sweep

from hostile.crash import kills
from hostile.crash.disk import State, states, whole
from hostile.crash.faults import REFUSALS, Kept, count_calls, refuse_each
from hostile.crash.recorder import record
from hostile.crash.remember import Ends
from hostile.crash.replay import SCENARIOS, Scenario, prepare, replay, sample
from hostile.crash.tiny_run import go, left_over, make_recipe, tree_of


def read(tree: State, name: str) -> bytes | None:
    return tree.tree.get(name)


def test_the_recorder_sees_what_a_library_writes_by_itself(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    (tmp_path / "before").write_text("x")
    with record(tmp_path) as changes:
        with atomic_folder(tmp_path / "a") as folder:
            save_file({"w": torch.zeros(3)}, folder / "w.safetensors")
        subprocess.run([sys.executable, "-c", f"open({str(tmp_path / 'child')!r}, 'w').write('y')"], check=True)
        (tmp_path / "before").unlink()
    assert whole(changes) == tree_of(tmp_path) and (tmp_path / "child").exists()


def test_the_disk_loses_what_was_not_flushed(tmp_path: Path) -> None:
    """The model of the disk has teeth: a rename without flushes may leave an empty file, a half one, or none."""
    (tmp_path / "a").write_text("the old one")
    with record(tmp_path) as changes:
        (tmp_path / "b").write_text("the new one!")
        (tmp_path / "b").rename(tmp_path / "a")
    found = {state.tree.get("a") for state in states(changes)}
    assert {b"the old one", b"the new one!", b"", b"the ne", bytes(6) + b"w one!"} <= found


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_file_or_a_folder_is_the_old_or_the_new_one_whenever_the_machine_dies(tmp_path: Path, kind: str) -> None:
    def write(text: str) -> None:
        if kind == "file":
            write_text(tmp_path / "disk" / "x", text)
        else:
            with atomic_folder(tmp_path / "disk" / "x") as folder:
                (folder / "in").mkdir(exist_ok=True)
                (folder / "in" / "y").write_text(text)

    (tmp_path / "disk").mkdir()
    write("the old one")
    with record(tmp_path / "disk") as changes:
        write("the new one")
    name, seen = "x" if kind == "file" else "x/in/y", set()
    front = next(
        n for n, change in enumerate(changes) if n and change.kind != "fsync" and changes[n - 1].kind == "fsync"
    )
    for number, state in enumerate(states(changes, start=front)):
        state.write(tmp_path / str(number))
        sweep(tmp_path / str(number))
        seen.add((tmp_path / str(number) / name).read_text())
        assert [path.name for path in (tmp_path / str(number)).iterdir()] == ["x"], state.variant
    assert seen == {"the old one", "the new one"}


TRIED = {**dict.fromkeys(SCENARIOS[:3], 15), "a further export": 5}
"""How many states are tried of what was recorded; `make prefixes` tries all, of the others, too."""


@pytest.fixture(scope="module")
def scenarios(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Scenario]:
    place = tmp_path_factory.mktemp("recorded")
    return {name: prepare(name, place / name.replace(" ", "-")) for name in TRIED}


@pytest.mark.parametrize("name", TRIED)
def test_a_machine_that_dies_leaves_the_newest_or_the_previous_state(
    scenarios: dict[str, Scenario], name: str, tmp_path: Path
) -> None:
    """A sample; `make prefixes` replays every state."""
    for state in sample(scenarios[name], TRIED[name]):
        end = replay(scenarios[name], state, tmp_path / "state")
        assert end in ("newest", "previous"), f"after {state.changes} changes, {state.variant}: {end}"


def test_lines_of_metrics_that_were_not_flushed_before_their_checkpoint_would_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay has teeth: without one flush that a run makes, another result comes out of some state."""
    monkeypatch.setattr(LineFile, "sync", lambda self: None)
    scenario = prepare("a new run", tmp_path / "recorded")
    dropped = [state for state in states(scenario.changes) if "metrics.jsonl" in str(sorted(state.tree))]
    dropped = [state for state in dropped if read(state, "runs/x/metrics.jsonl") == b"" and "step-0" in str(state.tree)]
    ends = {replay(scenario, state, tmp_path / "state") for state in dropped[-3:]}
    assert "another result: ['steps']" in ends


def test_a_run_is_stopped_only_where_another_went_on_from_the_same(
    scenarios: dict[str, Scenario], tmp_path: Path
) -> None:
    scenario, ends = scenarios["a run that goes on"], Ends()
    state = next(
        state
        for state in states(scenario.changes)
        if read(state, "runs/x/metrics.jsonl") and "checkpoints/step-00000002/" in str(sorted(state.tree))
    )
    assert [replay(scenario, state, tmp_path / "state", ends) for _ in range(2)] == ["newest", "newest"]
    assert ends.repeated == 1
    fewer = replace(state, tree={**state.tree, "runs/x/metrics.jsonl": b""})
    assert replay(scenario, fewer, tmp_path / "state", ends) == "another result: ['steps']"
    assert ends.repeated == 1


def test_open_files_are_put_back_as_they_were(tmp_path: Path) -> None:
    """A process that another one forks from goes on as if that had never changed its folder."""
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    with (root / "in" / "x").open("w+b", buffering=0) as file:
        file.write(b"one")
        kept = Kept(root)
        file.write(b" and more")
        shutil.rmtree(root / "in")
        (root / "y").write_text("another")
        kept.put_back()
        file.write(b", two")
    assert tree_of(root) == {"in": None, "in/x": b"one, two"}
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


@pytest.mark.parametrize(("code", "lasting"), REFUSALS)
def test_a_call_that_the_system_refuses_is_told_and_nothing_is_lost(tmp_path: Path, code: int, lasting: bool) -> None:
    """A sample; `make faults` refuses every call."""
    recipe, host = make_recipe(tmp_path), graftkit.PluginHost()
    expected = go(recipe, tmp_path / "never" / "x", host)
    (tmp_path / "counted").mkdir()
    calls = count_calls(recipe, tmp_path / "counted", host)
    assert {"open", "write", "fsync", "mkdir", "replace", "rename", "serialize"} <= {*calls}
    first = {name: calls.index(name) + 1 for name in ("serialize", "fsync", "write metrics")}
    drawn = {*first.values(), *random.Random(code).sample(range(1, len(calls) + 1), 5)}
    cases = {call: [(code, lasting)] for call in drawn}
    ends = refuse_each(recipe, expected, tmp_path / "refused", host, cases)
    assert {call for call, _ in ends} == drawn
    for (call, _), end in ends.items():
        assert end in ("told", "unharmed"), f"{errno.errorcode[code]} at call {call}: {end}"


def test_what_could_not_be_removed_is_no_artifact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe, host = make_recipe(tmp_path), graftkit.PluginHost()
    expected = go(recipe, tmp_path / "never" / "x", host)
    monkeypatch.setattr(tempfile.TemporaryDirectory, "_rmtree", lambda *_, **__: None)
    found = go(recipe, tmp_path / "x", host)
    assert any(name.endswith(".partial") for name in left_over(tmp_path / "x"))
    assert found["listed"] == expected["listed"]


def test_twenty_random_kills_are_resumed_bit_equal() -> None:
    """`make kills N=200` for more of them."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, kills.__file__, "20"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and "Kills resumed bit-equal: 20 of 20" in done.stdout, done.stdout + done.stderr
