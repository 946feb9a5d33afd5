"""Kills a run at random moments, by SIGKILL, has it go on, and compares the end with that of a run nobody stopped.

    python tests/hostile/crash/kills.py [KILLS] [SEED]

Each run is a process of its own, forked from this one so that it need not import torch again; a run that goes on may be
killed again. Prints a table of where kills struck.
"""

from __future__ import annotations

import collections
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import graftkit
import torch
from graftkit.errors import RequestError
from hostile.crash.tiny_run import facts_of, go, left_over, make_recipe

__all__ = ["main"]


def run_in_child(recipe: dict[str, Any], out: Path, host: graftkit.PluginHost, seconds: float | None) -> bool:
    """Runs, or goes on, in a process of its own, and kills that after some seconds.

    Returns:
        Whether it was killed; otherwise it has ended by itself.
    """
    child = os.fork()
    if not child:
        code = 1
        try:
            go(recipe, out, host, resume=True)
            code = 0
        except RequestError as error:
            code = 0 if "has finished" in error.message else 1
            if code:
                print(f"  {error}", flush=True)
        except BaseException as error:
            print(f"  {type(error).__name__}: {error}", flush=True)
        finally:
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status == -signal.SIGKILL


def where(out: Path) -> str:
    """Says how far a killed run had come, by what its manifest says is over."""
    try:
        stages = json.loads((out / "manifest.json").read_bytes())["stages"]
    except FileNotFoundError:
        return "before its first manifest"
    if stages and stages[-1]["name"] == "evaluation before":
        taken = len(list((out / "checkpoints").glob("step-*")))
        return f"in training, {'with' if taken else 'before'} a checkpoint"
    return f"after the stage '{stages[-1]['name']}'" if stages else "in its first stage"


def main() -> int:
    """Prints where kills struck and what became of the runs."""
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    draw = random.Random(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    torch.set_num_threads(1)
    host, start = graftkit.PluginHost(), time.perf_counter()
    struck: collections.Counter[str] = collections.Counter()
    equal = done = rounds = 0
    with tempfile.TemporaryDirectory() as place:
        recipe = make_recipe(Path(place), steps=6, export=("peft", "merged"))
        expected = go(recipe, Path(place) / "never-stopped", host)
        gc.collect()
        gc.freeze()  # each run collects garbage, which took it longer than anything else
        began = time.perf_counter()
        run_in_child(recipe, Path(place) / "timed", host, None)
        whole = time.perf_counter() - began
        while done < kills:
            rounds += 1
            out, hits = Path(place) / str(rounds) / "x", 0
            for _ in range(min(draw.choice((1, 1, 1, 2, 3)), kills - done)):
                if not run_in_child(recipe, out, host, draw.uniform(0, whole)):
                    break
                hits += 1
                struck[where(out)] += 1
            if not hits:
                continue
            ended = not run_in_child(recipe, out, host, None)
            done += hits
            same = ended and (out / "manifest.json").exists() and facts_of(out) == expected and not left_over(out)
            equal += hits if same else 0
            if not same:
                print(f"  run {rounds}: another result, or files left over: {left_over(out)}", flush=True)
    for place_, count in sorted(struck.items(), key=lambda item: -item[1]):
        print(f"{place_:45}{count:6}")
    seconds = time.perf_counter() - start
    print(f"Kills resumed bit-equal: {equal} of {done}, in {rounds} runs, {seconds:.0f} s", flush=True)
    return 0 if equal == done else 1


if __name__ == "__main__":
    sys.exit(main())
