"""Every exporter with every adapter, quantizer, architecture and vocabulary: `make matrix`.

A combination is one recipe. Each exporter proves its export of it, or refuses it before a record is encoded. Two values
of different dimensions occur together in some combination.
"""

from __future__ import annotations

import json
import math
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
from graftkit.flow.plan_of_run import plan
from graftkit.testing import tiny_model_folder
from tokenizer_kinds import tokenizer_file

__all__ = ["DIMENSIONS", "EXPORTERS", "Combination", "Workshop", "all_pairs", "awaited", "page"]

_SIZES = {"hidden_size": 128, "head_dim": 32, "intermediate_size": 128, "moe_intermediate_size": 32}
_DENSE = {**_SIZES, "sliding_window": None}
ARCHITECTURES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", _SIZES),
    "llama, untied": ("llama", {**_SIZES, "tie_word_embeddings": False}),
    "mistral": ("mistral", _DENSE),
    "mixtral": ("mixtral", {**_DENSE, "tie_word_embeddings": False}),
    "qwen2": ("qwen2", _DENSE),
    "qwen2_moe": ("qwen2_moe", {**_DENSE, "use_sliding_window": False}),
    "qwen3": ("qwen3", _DENSE),
    "qwen3_moe": ("qwen3_moe", {**_DENSE, "norm_topk_prob": True}),
    "gemma2": ("gemma2", {**_SIZES, "query_pre_attn_scalar": 32, "pad_token_id": 0}),
    "gemma3": ("gemma3_text", {**_SIZES, "num_hidden_layers": 6, "query_pre_attn_scalar": 32, "pad_token_id": 0}),
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
    "gguf type": {name: name for name in ("f32", "f16", "bf16", "q8_0", "q4_0")},
    "mlx bits": {"none": None, "8": 8, "4": 4},
}
NO_GGUF = ("gpt2", "gpt_oss", "lfm2")
"""The architectures of which no GGUF file is written or read."""
NO_MLX = (*NO_GGUF, "gemma2")
"""Those that mlx-lm does not compute: it has no windows for the second Gemma, which is shorter here than sequences."""
EXPORTERS = ("peft", "merged", "extended-base", "gguf", "gguf-lora", "mlx", "mlx-lora")
_FORMS = {"gguf-lora": "a GGUF adapter", "mlx-lora": "an adapter of mlx-lm"}


@dataclass(frozen=True)
class Combination:
    """A value of each dimension, by name."""

    architecture: str
    vocabulary: str
    base: str
    quantizer: str
    adapter: str
    gguf_type: str
    mlx_bits: str

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
    if exporter in _FORMS and not kept:
        return f"rows of the embeddings have no form in {_FORMS[exporter]}"
    if exporter in _FORMS and combination.adapter == "dora":
        return f"DoRA's magnitudes have no form in {_FORMS[exporter]}"
    if exporter.startswith("mlx") and combination.architecture in NO_MLX:
        return "mlx-lm"
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

    def try_exporters(
        self, combination: Combination, out: Path, exporters: Sequence[str] = EXPORTERS
    ) -> dict[str, str]:
        """Runs a combination with those exporters that take it.

        Returns:
            By exporter "proved" or the reason of its refusal.

        Raises:
            AssertionError: An export is not proved.
        """
        found: dict[str, str] = {}
        for exporter in exporters:
            try:
                plan(self.recipe(combination, [exporter]), as_run=True)
            except RequestError as error:
                found[exporter] = error.message
        taken = [exporter for exporter in exporters if exporter not in found]
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
        own = {
            "gguf": {"use": "gguf", "type": combination.gguf_type},
            "mlx": {"use": "mlx", "bits": DIMENSIONS["mlx bits"][combination.mlx_bits]},
        }
        return {
            "model": str(self._base(combination)),
            **({"tokenizer": tokenizer} if tokenizer else {}),
            "data": {"train": str(self.records), "holdout": 0.1, "max_length": 64},
            "quantizer": combination.quantizer,
            "adapter": DIMENSIONS["adapter"][combination.adapter],
            "training": {"steps": 3, "tokens_per_step": 128, "learning_rate": 1e-2, "device": "cpu"},
            "export": [own.get(name, name) for name in exporters],
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


def outcome(workshop: Workshop, combination: Combination, out: Path) -> dict[str, str]:
    """Returns what came of each exporter, "proved" or its refusal; under "run" the error that ended the run."""
    try:
        return workshop.try_exporters(combination, out)
    except (AssertionError, GraftkitError) as error:
        return {"run": str(error)}


def wrong_in(combination: Combination, found: Mapping[str, str]) -> list[str]:
    """Returns what came otherwise than awaited."""
    return [f"{combination}: {name}: {said}" for name, said in found.items() if awaited(combination, name) not in said]


def page(tried: Mapping[Combination, Mapping[str, str]]) -> str:
    """Returns docs/exports.md: how many exports were proved, and why the others were refused."""
    lines = [_PAGE]
    for title, cells in (("exporter", _by_exporter(tried)), ("architecture", _by_architecture(tried))):
        heads = [title, *next(iter(cells.values()))]
        lines += ["", f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
        lines += [f"| {name} | {' | '.join(row.values())} |" for name, row in cells.items()]
    return "\n".join([*lines, ""])


_PAGE = f"""# Exports, tried in pairs

What `make matrix` finds, and writes here. A combination is one recipe: an architecture (tiny, random weights), what
becomes of the vocabulary, the base model's form, a quantizer, an adapter, the type of the GGUF file, the bits of MLX's
numbers. Two values of different dimensions occur together in some combination; all {len(EXPORTERS)} exporters are tried
with each. An export is proved by the program that it is meant for, or refused before a record is encoded.

{"".join(f"- {name}: {', '.join(values)}" + chr(10) for name, values in list(DIMENSIONS.items())[1:])}
How many exports were proved, and why the others were refused:"""


def _by_exporter(tried: Mapping[Combination, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    found = {}
    for name in EXPORTERS:
        said = Counter(awaited(combination, name) for combination in tried)
        proved = said.pop("proved", 0)
        refused = "; ".join(f"{why} ({count})" for why, count in said.most_common())
        found[name] = {"proved": str(proved), "refused": refused or "none"}
    return found


def _by_architecture(tried: Mapping[Combination, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """Returns for each architecture how many of an exporter's exports were proved, of how many that were tried."""
    cells = {}
    for architecture in ARCHITECTURES:
        own = [found for combination, found in tried.items() if combination.architecture == architecture]
        proved = {name: sum(found.get(name) == "proved" for found in own) for name in EXPORTERS}
        cells[architecture] = {name: f"{count} of {len(own)}" for name, count in proved.items()}
    return cells


def main() -> None:
    """Tries what the results' file lacks, and writes docs/exports.md; fails where one came otherwise than awaited.

    python tests/export_matrix.py RESULTS [SECONDS]

    RESULTS gets a line of JSON for each combination. After SECONDS no further one is begun; the same command goes on.
    """
    warnings.simplefilter("ignore")
    results, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else math.inf
    chosen, end = all_pairs(), time.monotonic() + seconds
    tried = _read(results)
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(Path(folder))
        for number, combination in enumerate(chosen):
            if combination in tried or time.monotonic() > end:
                continue
            start = time.perf_counter()
            tried[combination] = outcome(workshop, combination, Path(folder) / "runs" / str(number))
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps([vars(combination), tried[combination]]) + "\n")
            wrong = wrong_in(combination, tried[combination])
            took = time.perf_counter() - start
            print(f"{number + 1}/{len(chosen)} {combination}: {took:.1f} s", *wrong, sep="\n  ", flush=True)
    wrong = [text for combination in chosen for text in wrong_in(combination, tried.get(combination, {}))]
    left = sum(combination not in tried for combination in chosen)
    if wrong or left:
        sys.exit("\n".join([f"{left} combinations are left to be tried", *wrong]))
    _DOCS.write_text(page({combination: tried[combination] for combination in chosen}), encoding="utf-8")


_DOCS = Path(__file__).parent.parent / "docs" / "exports.md"


def _read(results: Path) -> dict[Combination, dict[str, str]]:
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    return {Combination(**combination): found for combination, found in map(json.loads, lines)}


if __name__ == "__main__":
    main()
