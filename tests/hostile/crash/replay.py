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
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import graftkit
from graftkit.errors import Cancelled, RequestError
from graftkit.flow.events import Event, StepFinished
from hostile.crash.disk import State, states, whole
from hostile.crash.recorder import Change, record
from hostile.crash.remember import Ends
from hostile.crash.tiny_run import facts_of, go, left_over, make_recipe, tree_of
from memory_folder import memory_folder

__all__ = ["SCENARIOS", "Scenario", "prepare", "replay", "sample"]

SCENARIOS = ("a new run", "a run that goes on", "a run that replaces another")


@dataclass(frozen=True)
class Scenario:
    """A run that was recorded.

    Attributes:
        name: One of `SCENARIOS`.
        recipe: Its recipe.
        changes: What it changed on the disk.
        newest: What it came to.
        previous: What was there before, where that is a finished run.
        host: The plugins.
    """

    name: str
    recipe: dict[str, Any]
    changes: Sequence[Change]
    newest: dict[str, Any]
    previous: dict[str, Any] | None
    host: graftkit.PluginHost


def prepare(name: str, folder: Path) -> Scenario:
    """Runs once, and records it. What was recorded gives exactly what lies there at the end."""
    folder.mkdir()
    (folder / "disk").mkdir()
    recipe, host, out = make_recipe(folder), graftkit.PluginHost(), folder / "disk" / "runs" / "x"
    newest = go(recipe, folder / "never-stopped", host)
    previous, options = None, {}
    if name == "a run that goes on":
        _stop_after_a_step(recipe, out, host)
        options = {"resume": True}
    if name == "a run that replaces another":
        previous = go({**recipe, "adapter": {"use": "lora", "rank": 3}}, out, host)
        options = {"overwrite": True}
    with record(folder / "disk") as changes:
        assert go(recipe, out, host, **options) == newest
    assert whole(changes) == tree_of(folder / "disk"), "the recorder has missed something"
    return Scenario(name, recipe, changes, newest, previous, host)


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
        found = go(scenario.recipe, out, scenario.host, resume=True)
    except RequestError as error:
        found = facts_of(out) if (out / "manifest.json").exists() else {}
        if found not in (scenario.newest, scenario.previous):
            return f"refused: {error}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "previous" if found == scenario.previous else _compared(scenario, found, out)


def _replaced(scenario: Scenario, out: Path) -> str:
    try:
        return _compared(scenario, go(scenario.recipe, out, scenario.host, overwrite=True), out)
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
