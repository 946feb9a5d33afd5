"""Steps that learn vectors of texts: graftkit against sentence-transformers + PEFT.

    python tests/benchmarks/embedding_step.py [--rounds 3] [--steps 4] [--examples 32]

The peer runs in `--peer-python`, this Python if left out; it needs sentence-transformers and peft. Both sides train
LoRA of rank 16 on all linear layers of a random BERT of six layers of 256 in float32. A step compares so many
questions, which are requests of the home-automation records, with their answers and as many answers of other records:
by its CachedMultipleNegativesRankingLoss with 32 texts a pass there, and with `microbatch_tokens` as they come here.
Compared are tokens a second of whole steps. Sides alternate, each run in a fresh process; the first step of a run,
which warms up, is left out.
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

sys.path.insert(0, str(Path(__file__).parents[1]))
from encoder_models import ENCODERS, encoder_folder

SCRIPT = """
import json, resource, sys, graftkit
graftkit.run(json.loads(sys.argv[1]), out=sys.argv[2])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
SHAPE = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 8}


def ours(model: Path, rows: Path, tokens: int, options: argparse.Namespace, out: Path) -> dict[str, float]:
    """Runs graftkit; its step lines say tokens and seconds."""
    recipe: dict[str, Any] = {
        "model": str(model),
        "data": {"train": str(rows), "holdout": 0.0, "max_length": 512},
        "objective": "embedding",
        "adapter": {"use": "lora", "rank": 16, "alpha": 32},
        "quantizer": "none",
        "training": {
            "steps": options.steps,
            "tokens_per_step": tokens,
            "learning_rate": 1e-4,
            "device": "cpu",
        },
    }
    command = [sys.executable, "-c", SCRIPT, json.dumps(recipe), str(out)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return facts_of([line["tokens"] for line in lines], [line["seconds"] for line in lines], int(printed[-1]))


def theirs(model: Path, rows: Path, options: argparse.Namespace) -> dict[str, float]:
    """Runs the peer."""
    script = Path(__file__).parent / "peers" / "sentence_transformers_step.py"
    command = [options.peer_python, str(script), str(model), str(rows), str(options.steps), str(options.examples)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    facts = json.loads(printed)
    return facts_of(facts["tokens"], facts["seconds"], facts["peak_mb"])


def facts_of(tokens: list[int], seconds: list[float], peak_mb: int) -> dict[str, float]:
    """Returns the figures of a run, whose first step is left out."""
    rate = sum(tokens[1:]) / sum(seconds[1:])
    return {
        "rate": rate,
        "step": statistics.mean(seconds[1:]),
        "tokens": statistics.mean(tokens[1:]),
        "peak_mb": peak_mb,
    }


def main() -> None:
    """Prints each round and the medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", default=sys.executable)
    for name, default in (("rounds", 3), ("steps", 4), ("examples", 32)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    home = Path(__file__).parents[2] / "fixtures" / "home" / "train.jsonl"
    said = [[m["content"] for m in json.loads(line)["messages"][-2:]] for line in home.read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        rows, model = Path(folder) / "rows.jsonl", Path(folder) / "model"
        records = [
            {"query": asked, "positive": answer, "negative": said[number - 7][1] + "."}
            for number, (asked, answer) in enumerate(said)
        ]
        rows.write_text("".join(json.dumps(record) + "\n" for record in records))
        ENCODERS["bert"] |= {**SHAPE, "max_position_embeddings": 512}
        encoder_folder(model, "bert", whole=False)
        pairs, tokens = [], 0
        for number in range(options.rounds):
            peer = theirs(model, rows, options)
            tokens = tokens or round(peer["tokens"])
            pairs.append((ours(model, rows, tokens, options, Path(folder) / f"run-{number}"), peer))
            print(json.dumps({"graftkit": pairs[-1][0], "sentence-transformers": peer}), flush=True)
    for key in ("rate", "step", "peak_mb"):
        both = [statistics.median(pair[side][key] for pair in pairs) for side in (0, 1)]
        ratio = statistics.median(pair[0][key] / pair[1][key] for pair in pairs)
        print(f"{key:10} graftkit {both[0]:9.1f}   sentence-transformers {both[1]:9.1f}   ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
