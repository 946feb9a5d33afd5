"""Every exporter with every adapter, quantizer, architecture and vocabulary: `make matrix`.

A combination is one recipe. Each exporter proves its export of it, or refuses it before a record is encoded. Two values
of different dimensions occur together in some combination.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import graftkit
from architectures import settings
from gguf_models import write_model
from graftkit.errors import GraftkitError, RequestError
from graftkit.flow.run import plan
from graftkit.testing import tiny_model_folder
from tokenizer_kinds import tokenizer_file

__all__ = ["DIMENSIONS", "EXPORTERS", "Combination", "Workshop", "all_pairs", "awaited"]

_SIZES = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 128, "moe_intermediate_size": 32}
_DENSE = {**_SIZES, "sliding_window": None}
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", _SIZES),
    "llama, untied": ("llama", {**_SIZES, "tie_word_embeddings": False}),
    "mistral": ("mistral", _DENSE),
    "mixtral": ("mixtral", {**_DENSE, "tie_word_embeddings": False}),
    "qwen2": ("qwen2", _DENSE),
    "qwen2_moe": ("qwen2_moe", _DENSE),
    "qwen3": ("qwen3", _DENSE),
    "qwen3_moe": ("qwen3_moe", {**_DENSE, "norm_topk_prob": True}),
    "gemma2": ("gemma2", {**_SIZES, "query_pre_attn_scalar": 32, "pad_token_id": 0}),
    "gemma3": ("gemma3_text", {**_SIZES, "query_pre_attn_scalar": 32, "pad_token_id": 0}),
    "phi3": ("phi3", {**_DENSE, "pad_token_id": 0}),
    "smollm3": ("smollm3", {**_DENSE, "num_hidden_layers": 4}),
    "starcoder2": ("starcoder2", _DENSE),
    "granite": ("granite", {**_SIZES, "embedding_multiplier": 3.0, "logits_scaling": 2.0}),
    "olmo2": ("olmo2", {**_SIZES, "num_key_value_heads": 4}),
    "gpt2": ("gpt2", {}),
    "gpt_oss": ("gpt_oss", {}),
    "lfm2": ("lfm2", {}),
}
DIMENSIONS: Mapping[str, Mapping[str, Any]] = {
    "architecture": ARCHITECTURES,
    "vocabulary": {
        "kept": None,
        "extended": {"extend": {"tokens": 75}},
        "trained": {"train": {"use": "byte-level", "vocab_size": 300}},
        "replaced": {"replace": "tokenizer"},
    },
    "base": {"safetensors": None, "gguf f32": "f32", "gguf q8_0": "q8_0"},
    "quantizer": {name: name for name in ("none", "nf4", "int8", "stored")},
    "adapter": {
        "lora": {"use": "lora", "rank": 4},
        "rslora": {"use": "lora", "rank": 4, "rslora": True},
        "dora": {"use": "lora", "rank": 4, "dora": True},
        "lora of attention": {"use": "lora", "rank": 2, "targets": ["*_proj", "*attn*"]},
    },
    "gguf type": {name: name for name in ("f32", "f16", "bf16", "q8_0")},
}
NO_GGUF = ("gpt2", "gpt_oss", "lfm2")
"""The architectures of which no GGUF file is written or read."""
EXPORTERS = ("peft", "merged", "extended-base", "gguf", "gguf-lora")


@dataclass(frozen=True)
class Combination:
    """A value of each dimension, by name."""

    architecture: str
    vocabulary: str
    base: str
    quantizer: str
    adapter: str
    gguf_type: str

    def __str__(self) -> str:
        return ", ".join(vars(self).values())


def all_pairs(architectures: Sequence[str] = tuple(ARCHITECTURES), *, seed: int = 0) -> list[Combination]:
    """Returns combinations in which every two values of different dimensions occur together, found greedily."""
    values = [list(found) for found in DIMENSIONS.values()]
    values[0] = list(architectures)
    open_pairs = {
        ((i, a), (j, b))
        for i, j in combinations(range(len(values)), 2)
        for a in values[i]
        for b in values[j]
        if _can_be(a, b)
    }
    stream, found = random.Random(seed), []
    while open_pairs:
        first = min(open_pairs)
        tries = []
        for _ in range(30):
            row = [stream.choice(each) for each in values]
            for place, value in first:
                row[place] = value
            if not _can_be(row[0], row[2]):
                continue
            covered = {pair for pair in combinations(enumerate(row), 2) if pair in open_pairs}
            tries.append((len(covered), row, covered))
        _, row, covered = max(tries, key=lambda tried: tried[0])
        open_pairs -= covered
        found.append(Combination(*row))
    return found


def _can_be(architecture: str, base: str) -> bool:
    """Whether a base model of this architecture is written in this form; of other values, that nothing hinders it."""
    return architecture not in NO_GGUF or not base.startswith("gguf ")


def awaited(combination: Combination, exporter: str) -> str:
    """Returns "proved", or what the reason of the refusal says."""
    kept, extended = combination.vocabulary == "kept", combination.vocabulary == "extended"
    if exporter.startswith("gguf") and combination.architecture in NO_GGUF:
        return "can't be written as GGUF"
    if exporter == "gguf-lora" and not kept:
        return "rows of the embeddings have no form in a GGUF adapter"
    if exporter == "gguf-lora" and combination.adapter == "dora":
        return "DoRA's magnitudes have no form in a GGUF adapter"
    if exporter == "extended-base" and kept:
        return "the vocabulary is the base model's"
    if exporter == "peft" and not kept and not extended:
        return "tokens of the base model have other ids now"
    return "proved"


class Workshop:
    """Makes the base models and records of combinations in a folder, and tries exporters on them.

    Args:
        folder: Where everything is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.records = folder / "records.jsonl"
        texts = [f"the number {n} and the number {n + 1} make {2 * n + 1}, said the teacher" for n in range(60)]
        self.records.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")

    def try_exporters(self, combination: Combination, out: Path) -> dict[str, str]:
        """Runs a combination with all exporters that take it.

        Returns:
            By exporter "proved" or the reason of its refusal.

        Raises:
            AssertionError: An export is not proved.
        """
        found: dict[str, str] = {}
        for exporter in EXPORTERS:
            try:
                plan(self.recipe(combination, [exporter]), as_run=True)
            except RequestError as error:
                found[exporter] = error.message
        taken = [exporter for exporter in EXPORTERS if exporter not in found]
        if taken:
            result = graftkit.run(self.recipe(combination, taken), out=out)
            for exporter, facts in result.manifest["exports"].items():
                assert facts["proof"]["status"] == "proved", f"{combination}: {exporter}: {facts['proof']}"
                found[exporter] = "proved"
        return found

    def recipe(self, combination: Combination, exporters: Sequence[str]) -> dict[str, Any]:
        """Returns the recipe of a combination."""
        tokenizer = DIMENSIONS["vocabulary"][combination.vocabulary]
        if combination.vocabulary == "replaced":
            tokenizer = {"replace": str(self._other_tokenizer())}
        gguf = {"use": "gguf", "type": combination.gguf_type}
        return {
            "model": str(self._base(combination)),
            **({"tokenizer": tokenizer} if tokenizer else {}),
            "data": {"train": str(self.records), "holdout": 0.1, "max_length": 64},
            "quantizer": combination.quantizer,
            "adapter": DIMENSIONS["adapter"][combination.adapter],
            "training": {"steps": 3, "tokens_per_step": 128, "learning_rate": 1e-2, "device": "cpu"},
            "export": [gguf if name == "gguf" else name for name in exporters],
        }

    def _base(self, combination: Combination) -> Path:
        kind, changes = ARCHITECTURES[combination.architecture]
        name = combination.architecture.replace(", ", "-")
        folder = self.folder / "bases" / name
        if not folder.exists():
            tiny_model_folder(folder, **{**settings(kind), **changes})
        type_ = DIMENSIONS["base"][combination.base]
        if type_ is None:
            return folder
        path = self.folder / "bases" / f"{name}-{type_}.gguf"
        return path if path.exists() else write_model(path, folder, type_)

    def _other_tokenizer(self) -> Path:
        folder = self.folder / "tokenizer"
        if not folder.exists():
            folder.mkdir()
            (folder / "tokenizer.json").write_bytes(tokenizer_file("byte-level, llama3"))
        return folder


def main() -> None:
    """Prints what came of each combination, and a table of exporters; fails where one is neither proved nor refused."""
    warnings.simplefilter("ignore")
    proved: Counter[str] = Counter()
    refused: Counter[tuple[str, str]] = Counter()
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        chosen = all_pairs(sys.argv[1:] or tuple(ARCHITECTURES))
        for number, combination in enumerate(chosen):
            start = time.perf_counter()
            try:
                found = workshop.try_exporters(combination, Path(folder) / "runs" / str(number))
            except (AssertionError, GraftkitError) as error:
                found = {"run": str(error)}
            odd = {name: said for name, said in found.items() if awaited(combination, name) not in said}
            wrong += [f"{combination}: {name}: {said}" for name, said in odd.items()]
            proved.update(name for name, said in found.items() if said == "proved")
            refused.update((name, awaited(combination, name)) for name in found.keys() - odd if found[name] != "proved")
            print(f"{number + 1}/{len(chosen)} {combination}: {time.perf_counter() - start:.1f} s", flush=True)
    print("\n| exporter | proved | refused |\n|---|---:|---|")
    for name in EXPORTERS:
        why = "; ".join(f"{count}: {why}" for (of, why), count in refused.items() if of == name)
        print(f"| {name} | {proved[name]} | {why} |")
    sys.exit("\n".join(["", *wrong]) if wrong else 0)


if __name__ == "__main__":
    main()
