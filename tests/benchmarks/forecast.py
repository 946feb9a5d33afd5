"""Memory forecast against memory measured, each configuration in a process of its own.

    python tests/benchmarks/forecast.py [NAME ...]

Random models of some hundred megabytes are written, each recipe is run, and then planned. Printed is a line a
configuration: the peak of the run's own process over all stages, as `toolkit plan` forecasts it and as it was measured,
in megabytes, and how far off the forecast is; and the same of training
alone. Linux.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

RUN = "import sys, graftkit; graftkit.run(sys.argv[1], out=sys.argv[2])"
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 768,
        "intermediate_size": 2048,
        "num_hidden_layers": 10,
        "num_attention_heads": 12,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 32000,
    },
    "gemma": {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "hidden_size": 640,
        "intermediate_size": 2560,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 64000,
        "sliding_window": 128,
        "query_pre_attn_scalar": 64,
        "tie_word_embeddings": True,
    },
    "qwen-moe": {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "hidden_size": 512,
        "intermediate_size": 1024,
        "moe_intermediate_size": 384,
        "num_experts": 16,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 6,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
        "vocab_size": 32000,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
    },
}
CASES: dict[str, dict[str, Any]] = {
    "llama-float32": {},
    "llama-bfloat16": {"dtype": "bfloat16"},
    "llama-nf4": {"quantizer": "nf4"},
    "llama-nf4-bfloat16": {"quantizer": "nf4", "dtype": "bfloat16", "stored": "bfloat16"},
    "llama-int8": {"quantizer": "int8", "microbatch": 512},
    "llama-long": {"quantizer": "nf4", "length": 1024, "microbatch": 2048, "step": 2048},
    "llama-short": {"length": 64, "microbatch": 512},
    "llama-vocabulary": {"quantizer": "nf4", "shape": {"vocab_size": 128000}, "microbatch": 512},
    "llama-rows": {"quantizer": "nf4", "rows": True},
    "llama-merged": {"quantizer": "nf4", "microbatch": 256, "export": ["merged"]},
    "gemma-nf4": {"model": "gemma", "quantizer": "nf4", "microbatch": 512},
    "gemma-bfloat16": {"model": "gemma", "dtype": "bfloat16"},
    "qwen-moe-int8": {"model": "qwen-moe", "quantizer": "int8"},
    "qwen-moe-bfloat16": {"model": "qwen-moe", "dtype": "bfloat16", "targets": ["all-linear", "experts"]},
    "llama-answers": {"quantizer": "nf4", "microbatch": 256, "answers": True},
    "llama-passes": {"step": 4096},
    "llama-wholes": {"whole": ["embed_tokens", "lm_head", "norm"], "step": 2048},
    "llama-whole-bfloat16": {"quantizer": "nf4", "dtype": "bfloat16", "whole": ["lm_head"], "step": 2048},
    "llama-whole-tied": {"shape": {"tie_word_embeddings": True}, "quantizer": "nf4", "tied": True, "step": 2048},
    "llama-classes": {"objective": "classification", "step": 2048},
    "llama-classes-once": {"objective": "classification"},
    "llama-teacher": {"objective": "distill", "quantizer": "nf4", "whole": ["lm_head"], "step": 2048},
    "llama-sampled": {"objective": "grpo", "quantizer": "nf4", "microbatch": 512},
    "llama-sampled-near": {"objective": "grpo", "quantizer": "nf4", "microbatch": 512, "beta": 0.1},
    "llama-pairs": {"objective": "dpo", "quantizer": "nf4", "step": 2048},
}


def write_model(folder: Path, shape: dict[str, Any], stored: str) -> None:
    """Writes a random model, in a process of its own, whose memory goes with it."""
    from graftkit.testing import tiny_model_folder

    tiny_model_folder(folder, max_position_embeddings=4096, initializer_range=0.02, **shape)
    if stored == "bfloat16":
        import torch
        from safetensors.torch import load_file, save_file

        path = folder / "model.safetensors"
        save_file({k: v.to(torch.bfloat16) for k, v in load_file(path).items()}, path, metadata={"format": "pt"})


def _row(objective: str, number: int, text: str) -> dict[str, str]:
    """Returns a record of an objective."""
    if objective == "classification":
        return {"text": text, "label": "ab"[number % 2]}
    if objective == "dpo":
        half = len(text) // 2
        return {"prompt": text[:half], "chosen": text[half:], "rejected": text[half:][::-1]}
    return {"prompt": text} if objective == "grpo" else {"text": text}


def write_recipe(place: Path, case: dict[str, Any]) -> Path:
    """Writes records of `length` tokens, a byte each, and a recipe that trains three steps on them."""
    length = case.get("length", 256)
    if case.get("answers"):
        rows = [{"prompt": "ab" * (length // 4), "response": "cd" * (length // 8)} for _ in range(20)]
    else:
        texts = ["".join(chr(97 + (n * k) % 26) for k in range(length - 3)) for n in range(1, 25)]
        rows = [_row(case.get("objective", "sft"), n, text) for n, text in enumerate(texts)]
    (place / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe: dict[str, Any] = {
        "model": str(place / "model"),
        "data": {"train": str(place / "records.jsonl"), "holdout": 0.1, "max_length": length},
        "quantizer": case.get("quantizer", "none"),
        "adapter": {"use": "lora", "rank": 16, "targets": case.get("targets", ["all-linear"])},
        "training": {
            "steps": 3,
            "tokens_per_step": case.get("step", 1024),
            "microbatch_tokens": case.get("microbatch", 1024),
            "device": os.environ.get("BENCHMARK_DEVICE", "cpu"),
            "dtype": case.get("dtype", "float32"),
        },
        "export": case.get("export", []),
    }
    if case.get("whole"):
        recipe["adapter"]["modules_to_save"] = case["whole"]
    if case.get("tied"):
        recipe["adapter"] |= {"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
    if case.get("objective") == "distill":
        recipe["objective"] = {"use": "distill", "teacher": str(place / "teacher"), "top_k": 1024}
    elif case.get("objective") == "grpo":
        beta = case.get("beta", 0.0)
        recipe["objective"] = {"use": "grpo", "group_size": 8, "max_new_tokens": 64, "beta": beta}
        recipe["evaluation"] = {"metrics": {"use": "regex", "pattern": "[a-m]"}}
        recipe["data"]["max_length"] = length + 64
    elif case.get("objective"):
        recipe["objective"] = case["objective"]
    if case.get("rows"):
        recipe["tokenizer"] = {"extend": {"words": [f"word{n}" for n in range(2000)]}}
    if case.get("answers"):
        recipe["evaluation"] = {"answers": 6, "max_new_tokens": 256}
    path = place / "recipe.yaml"
    path.write_text(json.dumps(recipe))
    return path


def measured(name: str, case: dict[str, Any], place: Path) -> dict[str, Any]:
    """Runs a configuration; returns the `memory` of its manifest."""
    shape = {**SHAPES[case.get("model", "llama")], **case.get("shape", {})}
    stored = case.get("stored", "float32")
    shapes = {"model": shape}
    if case.get("objective") == "distill":
        shapes["teacher"] = {**shape, "num_hidden_layers": 14}
    for folder, own in shapes.items():
        write = [sys.executable, __file__, "--write", str(place / folder), json.dumps(own), stored]
        subprocess.run(write, check=True, capture_output=True)
    recipe = write_recipe(place, case)
    done = subprocess.run([sys.executable, "-c", RUN, str(recipe), str(place / "run")], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads((place / "run" / "manifest.json").read_bytes())["memory"]["measured"]
    plan = [sys.executable, "-m", "graftkit", "plan", str(recipe), "--json"]
    told = json.loads(subprocess.run(plan, check=True, capture_output=True).stdout)["memory"]
    return {"forecast": told, "measured": measured}


def main() -> None:
    """Prints the table, and each stage with `--stages`."""
    if sys.argv[1:2] == ["--write"]:
        write_model(Path(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4])
        return
    stages = "--stages" in sys.argv
    wanted = [name for name in sys.argv[1:] if not name.startswith("--")] or list(CASES)
    print(f"{'':22}{'whole run':>33}{'training':>33}")
    print(f"{'':22}" + 2 * f"{'forecast':>12}{'measured':>12}{'off':>9}")
    for name in wanted:
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCHMARK_FOLDER")) as folder:
            memory = measured(name, CASES[name], Path(folder))
        forecast, found = memory["forecast"], memory["measured"]
        if forecast.get("unknown"):
            print(f"{name:22}{forecast['unknown']}")
            continue
        kind = "host" if forecast["device"] == "cpu" else "device"
        told = {stage["stage"]: stage[kind] for stage in forecast["stages"]}
        own = {stage: size for stage, size in found[kind].items() if not stage.startswith("proof")}
        pairs = [(max(told.values()), max(own.values())), (told["training"], own["training"])]
        shown = (f"{a / 1e6:12,.0f}{b / 1e6:12,.0f}{a / b - 1:+9.1%}" for a, b in pairs)
        print(f"{name:22}{''.join(shown)}", flush=True)
        if stages:
            for stage, size in found[kind].items():
                parts = next((s["parts"] for s in forecast["stages"] if s["stage"] == stage), {})
                shown = ", ".join(f"{part} {size / 1e6:.0f}" for part, size in parts.items())
                print(f"    {stage:24}{told.get(stage, 0) / 1e6:8,.0f}{size / 1e6:8,.0f}   {shown}")


if __name__ == "__main__":
    main()
