"""Memory of a whole run, exports and their proofs included, against what training itself needs.

    python tests/benchmarks/run_memory.py [MILLIONS [QUANTIZER [DTYPE [EXPORT ...]]]]

A synthetic llama of about so many million parameters (100 if left out), random, stored in bfloat16, is trained for a
few steps: NF4 and bfloat16 unless said otherwise. The resident memory of the run and of every process that it starts
is sampled; a page that several of them share is counted for each, a page of a mapped file like any other. Printed are
each stage's peak, training's, the whole run's and the ratio. Linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from threading import Thread

RUN = """
import json, sys, time
import graftkit
from graftkit.flow.events import StageFinished, StageStarted
def told(event):
    if isinstance(event, StageStarted | StageFinished):
        print(json.dumps([time.time(), type(event) is StageStarted, event.stage]), flush=True)
graftkit.run(sys.argv[1], out=sys.argv[2], on_event=told)
"""
STEPS, LENGTH, TOKENS_PER_STEP = 4, 256, 1024
SIZES = {100: (768, 10), 1000: (2048, 20)}
"""Hidden size and blocks by millions of parameters."""


def write_model(folder: Path, millions: int) -> None:
    """Writes a random llama with 32,000 ids, block by block, so that it takes no memory to speak of."""
    import torch
    from graftkit.testing import tiny_tokenizer_files
    from safetensors.torch import save_file

    hidden, blocks = SIZES[min(SIZES, key=lambda size: abs(size - millions))]
    inner, heads = hidden * 11 // 4 // 64 * 64, hidden // 64
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": blocks,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 4,
        "vocab_size": 32000,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
        "bos_token_id": 257,
        "eos_token_id": 258,
        "dtype": "bfloat16",
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name, data in tiny_tokenizer_files().items():
        (folder / name).write_bytes(data)
    narrow = hidden // 4
    shapes = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (inner, hidden),
        "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner),
    }
    random = torch.Generator().manual_seed(0)

    def matrix(*shape: int) -> torch.Tensor:
        return (0.02 * torch.randn(*shape, generator=random)).to(torch.bfloat16)

    weight_map: dict[str, str] = {}

    def save(file: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, file))

    ones = torch.ones(hidden, dtype=torch.bfloat16)
    save("ends.safetensors", {"model.embed_tokens.weight": matrix(32000, hidden), "model.norm.weight": ones})
    save("head.safetensors", {"lm_head.weight": matrix(32000, hidden)})
    for block in range(blocks):
        prefix = f"model.layers.{block}."
        tensors = {f"{prefix}{name}.weight": matrix(*shape) for name, shape in shapes.items()}
        tensors |= {f"{prefix}{name}.weight": ones.clone() for name in ("input_layernorm", "post_attention_layernorm")}
        save(f"block-{block}.safetensors", tensors)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def write_recipe(place: Path, quantizer: str, dtype: str, exports: list[str]) -> Path:
    """Writes rows of LENGTH tokens and a recipe that trains a few steps on them."""
    rows = [{"text": "".join(chr(97 + (n * k) % 26) for k in range(LENGTH))} for n in range(64)]
    (place / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = {
        "model": str(place / "model"),
        "data": {"train": str(place / "records.jsonl"), "holdout": 0.1, "max_length": LENGTH},
        "quantizer": quantizer,
        "adapter": {"use": "lora", "rank": 16},
        "training": {"steps": STEPS, "tokens_per_step": TOKENS_PER_STEP, "device": "cpu", "dtype": dtype},
        "export": exports,
    }
    path = place / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def resident(root: int) -> int:
    """Returns the bytes of memory of a process and of all that it started."""
    parents: dict[int, int] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text()
            except OSError:
                continue
            parents[int(entry.name)] = int(text.rpartition(")")[2].split()[1])
    family, found = {root}, True
    while found:
        found = bool(more := {pid for pid, parent in parents.items() if parent in family} - family)
        family |= more
    total = 0
    for pid in family:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except (OSError, IndexError):
            continue
    return total


def sample(process: subprocess.Popen[str], samples: list[tuple[float, int]]) -> None:
    """Notes time and memory until the process ends."""
    while process.poll() is None:
        samples.append((time.time(), resident(process.pid)))
        time.sleep(0.05)


def main() -> None:
    """Prints a line a stage, and the ratio."""
    given = sys.argv[1:]
    millions = int(given[0]) if given else 100
    quantizer, dtype = (*given[1:3], *("nf4", "bfloat16")[len(given[1:3]) :])
    exports = given[3:] or ["peft", "merged"]
    samples: list[tuple[float, int]] = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as name:
        place = Path(name)
        write_model(place / "model", millions)
        recipe = write_recipe(place, quantizer, dtype, exports)
        command = [sys.executable, "-c", RUN, str(recipe), str(place / "run")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            watch = Thread(target=sample, args=(process, samples))
            watch.start()
            assert process.stdout is not None
            told = [json.loads(line) for line in process.stdout]
            watch.join()
        if process.returncode:
            raise SystemExit(process.returncode)
        proofs = json.loads((place / "run" / "manifest.json").read_bytes())["exports"]
    peaks: dict[str, int] = {}
    began: dict[str, float] = {}
    for at, begins, stage in told:
        if begins:
            began[stage] = at
            continue
        peaks[stage] = max((size for when, size in samples if began[stage] <= when <= at), default=0)
        print(f"{stage:24}{peaks[stage] / 1e6:10,.0f} MB {at - began[stage]:8.1f} s")
    whole = max(size for _, size in samples)
    print(f"{'whole run':24}{whole / 1e6:10,.0f} MB")
    print(f"the whole run takes {whole / peaks['training']:.2f} times training's memory")
    for name, facts in proofs.items():
        print(
            f"{name}: logits within {facts['proof']['max_abs_diff']:.1e}, covers {', '.join(facts['proof']['covers'])}"
        )


if __name__ == "__main__":
    main()
