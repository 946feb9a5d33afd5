"""Speed that `toolkit plan --time` tells against that of the training itself.

    python tests/benchmarks/plan_time.py [NAME ...]

Random models of some million parameters are written; of each recipe a plan is asked first, and then it is run, each in
a process of its own. Printed is a line a configuration: tokens a second as planned, and as the median of the run's
steps but the first, and how far off the plan is. Other programs on the machine make both slower, and not alike.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from graftkit.testing import tiny_model_folder

LLAMA: dict[str, Any] = {
    "hidden_size": 320,
    "intermediate_size": 864,
    "num_hidden_layers": 10,
    "num_attention_heads": 5,
    "num_key_value_heads": 5,
    "head_dim": 64,
    "vocab_size": 8000,
    "max_position_embeddings": 1024,
}
GEMMA: dict[str, Any] = LLAMA | {
    "model_type": "gemma2",
    "architectures": ["Gemma2ForCausalLM"],
    "sliding_window": 128,
    "query_pre_attn_scalar": 64,
    "tie_word_embeddings": True,
}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "llama, LoRA": (LLAMA, {}),
    "llama, NF4": (LLAMA, {"quantizer": "nf4"}),
    "llama, DoRA": (LLAMA, {"adapter": {"use": "lora", "dora": True}}),
    "llama, checkpointed blocks": (LLAMA, {"memory": {"checkpoint": "blocks"}}),
    "gemma 2, LoRA": (GEMMA, {}),
    "llama, a classifier": (LLAMA, {"objective": "classification"}),
}
STEPS = 6


def compared(place: Path, shape: dict[str, Any], sections: dict[str, Any]) -> tuple[float, float]:
    """Returns the tokens a second that are planned, and those that the run's steps took."""
    tiny_model_folder(place / "model", initializer_range=0.02, **shape)
    rows = [{"text": "".join(chr(97 + (n * k) % 26) for k in range(254)), "label": "ab"[n % 2]} for n in range(1, 41)]
    if "objective" not in sections:
        rows = [{"text": row["text"]} for row in rows]
    (place / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": str(place / "model"),
        "data": {"train": str(place / "records.jsonl"), "holdout": 0.1, "max_length": 256},
        "quantizer": "none",
        "adapter": "lora",
        "training": {"steps": STEPS, "tokens_per_step": 1024, "microbatch_tokens": 1024, "device": "cpu"},
        "export": [],
        **sections,
    }
    (place / "recipe.yaml").write_text(json.dumps(recipe))
    plan = [sys.executable, "-m", "graftkit", "plan", str(place / "recipe.yaml"), "--time", "--json"]
    planned = json.loads(subprocess.run(plan, check=True, capture_output=True).stdout)["time"]["tokens_per_second"]
    run = [sys.executable, "-m", "graftkit", "run", str(place / "recipe.yaml"), "--out", str(place / "run")]
    subprocess.run(run, check=True, capture_output=True)
    lines = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "tokens" in line and "step" in line and "learning_rate" in line]
    spans = [line["tokens"] / line["seconds"] for line in steps[1:]]
    return planned, statistics.median(spans)


def main() -> None:
    """Prints the table."""
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as place:
            planned, measured = compared(Path(place), *CASES[name])
        print(f"| {name} | {planned:,.0f} | {measured:,.0f} | {planned / measured - 1:+.1%} |", flush=True)


if __name__ == "__main__":
    main()
