"""Lays out what a disk may hold after a machine died at any moment of a run, and has the run go on from there.

    python tests/hostile/crash/replay.py [STATES [RECORDED]]

Prints a table; with a number, of a random sample of so many states; with a name of `SCENARIOS`, of that one alone.
"""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import graftkit
from graftkit.errors import Cancelled, RequestError
from graftkit.flow.events import Event, StepFinished
from graftkit.flow.exports.proof_leftovers import sweep_leftovers
from graftkit.flow.folders.folder import locked_folder
from hostile.crash.disk import State, states, whole
from hostile.crash.recorder import Change, record
from hostile.crash.remember import Ends
from hostile.crash.tiny_run import (
    add,
    export_adapter,
    facts_of,
    facts_of_export,
    go,
    left_over,
    make_recipe,
    prove_again,
    tree_of,
    with_head,
)
from memory_folder import memory_folder

__all__ = ["SCENARIOS", "Scenario", "prepare", "replay", "sample"]

SCENARIOS = (
    "a new run",
    "a run that goes on",
    "a run that replaces another",
    "a head and a whole module",
    "a further export",
    "an export written again",
    "proofs put off until later",
    "an adapter's export",
)


@dataclass(frozen=True)
class Scenario:
    """What was recorded: a run, or what is done with one that has finished.

    Attributes:
        name: One of `SCENARIOS`.
        changes: What it changed on the disk.
        newest: What it came to.
        previous: What was there before, where that is a finished run.
        go_on: Does again what was recorded, where it may have been stopped, and returns what came out.
        replace: Replaces what was there before, where that is another run, which `go_on` leaves as it is.
    """

    name: str
    changes: Sequence[Change]
    newest: dict[str, Any]
    previous: dict[str, Any] | None
    go_on: Callable[[Path], dict[str, Any]]
    replace: Callable[[Path], dict[str, Any]] | None = None


def prepare(name: str, folder: Path) -> Scenario:
    """Does it once, and records it. What was recorded gives exactly what lies there at the end."""
    folder.mkdir()
    (folder / "disk").mkdir()
    recipe, host, out = make_recipe(folder), graftkit.PluginHost(), folder / "disk" / "runs" / "x"
    if name in ("a head and a whole module", "proofs put off until later"):
        recipe = with_head(folder, recipe)

    def run(out: Path, **options: Any) -> dict[str, Any]:
        return go(recipe, out, host, **options)

    previous, replace = None, None
    do: Callable[[Path], dict[str, Any]] = run
    go_on: Callable[[Path], dict[str, Any]] = partial(run, resume=True)
    if name in ("a further export", "an export written again", "proofs put off until later"):
        previous = run(out)
        do = go_on = prove_again if name == "proofs put off until later" else partial(add, host=host)
        if name == "an export written again":
            assert add(out, host) != previous
            (out / "exports" / "merged" / "config.json").unlink()
            previous = None  # as it is, it is of no use
        shutil.copytree(out, folder / "never-stopped")
        newest = do(folder / "never-stopped")
    elif name == "an adapter's export":
        run(folder / "trained")
        do = go_on = partial(export_adapter, folder / "trained" / "exports" / "peft", host=host)
        newest = do(folder / "never-stopped")
    else:
        newest = run(folder / "never-stopped")
    if name == "a run that goes on":
        _stop_after_a_step(recipe, out, host)
        do = go_on
    if name == "a run that replaces another":
        previous = go({**recipe, "adapter": {"use": "lora", "rank": 3}}, out, host)
        do = replace = partial(run, overwrite=True)
    with record(folder / "disk") as changes:
        assert do(out) == newest
    assert whole(changes) == tree_of(folder / "disk"), "the recorder has missed something"
    return Scenario(name, changes, newest, previous, go_on, replace)


def _stop_after_a_step(recipe: dict[str, Any], out: Path, host: graftkit.PluginHost) -> None:
    cancel = graftkit.CancelToken()

    def on_event(event: Event) -> None:
        if isinstance(event, StepFinished):
            cancel.cancel("enough")

    try:
        go(recipe, out, host, cancel=cancel, on_event=on_event)
    except Cancelled:
        return


def replay(scenario: Scenario, state: State, folder: Path, ends: Ends | None = None) -> str:
    """Has a state's run go on.

    Args:
        scenario: What was recorded.
        state: What the disk holds.
        folder: Where it is laid out; it is missing, before and afterwards.
        ends: How former states of the scenario ended: a run that begins to compute from the same ends so, too.

    Returns:
        "newest" or "previous", by what is there then, or what is wrong.
    """
    ends = ends or Ends()
    out = folder / "runs" / "x"
    state.write(folder)
    try:
        end = ends.of(folder, lambda: _went_on(scenario, out))
        if end != "previous" or ends.stopped:
            return end
        replaced = ends.of(folder, lambda: _replaced(scenario, out))
        return "previous" if replaced == "newest" else f"the previous run could not be replaced any more: {replaced}"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _went_on(scenario: Scenario, out: Path) -> str:
    try:
        found = scenario.go_on(out)
    except RequestError as error:
        found = _found(out)
        if found not in (scenario.newest, scenario.previous):
            return f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "previous" if scenario.replace and found == scenario.previous else _compared(scenario, found, out)


def _found(out: Path) -> dict[str, Any]:
    """Returns what lies there, where that is complete."""
    if (out / "manifest.json").exists():
        return facts_of(out)
    export = out / "exports" / "merged"
    sweep_leftovers(export)  # as the next command does that has a part in it
    with locked_folder(out):
        return facts_of_export(out) if (export / "graftkit.json").exists() else {}


def _replaced(scenario: Scenario, out: Path) -> str:
    assert scenario.replace is not None
    try:
        return _compared(scenario, scenario.replace(out), out)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _compared(scenario: Scenario, found: dict[str, Any], out: Path) -> str:
    if found != scenario.newest:
        return f"another result: {sorted(key for key in found if found[key] != scenario.newest[key])}"
    return f"left over: {left_over(out)}" if left_over(out) else "newest"


def sample(scenario: Scenario, count: int | None, seed: int = 0) -> list[State]:
    """Returns all states of a scenario, or some that are drawn."""
    found = list(states(scenario.changes, start=_first(scenario.changes)))
    return found if count is None or count >= len(found) else random.Random(seed).sample(found, count)


def _first(changes: Sequence[Change]) -> int:
    """Returns how many changes stand for what was there at the beginning: the flushes at the front end them."""
    flushes = [number for number, change in enumerate(changes) if change.kind == "fsync"]
    end = next((n for n in flushes if n + 1 not in flushes and n + 1 < len(changes)), len(changes) - 1)
    return end + 1


def main() -> int:
    """Prints a table, and what went wrong."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else None
    names = sys.argv[2:] or SCENARIOS
    wrong = 0
    head = f"{'newest':>8}{'previous':>10}{'neither':>9}{'as one before':>15}{'seconds':>9}"
    print(f"{'recorded':30}{'changes':>9}{'states':>8}{head}")
    for name in names:
        start, known = time.perf_counter(), Ends()
        with tempfile.TemporaryDirectory(dir=memory_folder()) as place:
            scenario = prepare(name, Path(place) / "recorded")
            drawn = sample(scenario, count)
            ends: list[str] = []
            for state in drawn:
                end = replay(scenario, state, Path(place) / "state", known)
                ends.append(end)
                if end not in ("newest", "previous"):
                    print(f"  after {state.changes} changes, {state.variant}: {end}", flush=True)
        bad = len(ends) - ends.count("newest") - ends.count("previous")
        figures = f"{len(drawn):8}{ends.count('newest'):8}{ends.count('previous'):10}{bad:9}"
        spent = f"{known.repeated:15}{time.perf_counter() - start:9.0f}"
        print(f"{name:30}{len(scenario.changes):9}{figures}{spent}", flush=True)
        wrong += bad
    return min(1, wrong)


if __name__ == "__main__":
    sys.exit(main())
