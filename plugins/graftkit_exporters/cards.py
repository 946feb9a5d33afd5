"""What the model cards of the built-in formats say: which programs load them, and how."""

from __future__ import annotations

import shlex
from pathlib import Path

from graftkit import CardRequest, ExportCard, LoadingExample
from graftkit.interfaces.peft_config import read_adapter_config

__all__ = ["extended_base_card", "merged_card", "peft_card"]

_IN_A_FOLDER = 'folder = "."  # this folder, or its name on the hub'
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes as `--max-lora-rank`."""


def merged_card(request: CardRequest) -> ExportCard:
    """Returns the card of a whole model."""
    load = "\n".join(
        [
            _IN_A_FOLDER,
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'model = {request.auto_class}.from_pretrained(folder, dtype="auto")',
        ]
    )
    python = request.python([f"from transformers import {request.auto_class}, AutoTokenizer"], load)
    loading = [LoadingExample("transformers", "python", python)]
    loading += [LoadingExample("vLLM", "sh", "vllm serve .")] if request.head == "language" else []
    return ExportCard("transformers", "finetune", loading=loading)


def peft_card(request: CardRequest) -> ExportCard:
    """Returns the card of an adapter alone."""
    config = read_adapter_config(request.folder)
    new_rows = bool(config.get("trainable_token_indices"))
    resize = "model.resize_token_embeddings(max(len(tokenizer), model.get_input_embeddings().num_embeddings))"
    load = "\n".join(
        [
            _IN_A_FOLDER,
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'model = {request.auto_class}.from_pretrained({request.load_base()}, dtype="auto")',
            *([resize] if new_rows else []),
            "model = PeftModel.from_pretrained(model, folder)",
        ]
    )
    python = request.python(
        ["from peft import PeftModel", f"from transformers import {request.auto_class}, AutoTokenizer"], load
    )
    loading = [LoadingExample("peft", "python", python)]
    if (
        request.head == "language"
        and not new_rows
        and not config.get("target_parameters")
        and Path(request.base).suffix.lower() != ".gguf"
    ):
        loading += _with_vllm(request.base, request.folder, ".")
    return ExportCard("peft", "adapter", loading=loading)


def extended_base_card(request: CardRequest) -> ExportCard:
    """Returns the card of a base with a new vocabulary and the adapter beside it."""
    load = "\n".join(
        [
            'tokenizer = AutoTokenizer.from_pretrained("base")',
            'model = AutoModelForCausalLM.from_pretrained("base", dtype="auto")',
            'model = PeftModel.from_pretrained(model, "adapter")',
        ]
    )
    python = request.python(
        ["from peft import PeftModel", "from transformers import AutoModelForCausalLM, AutoTokenizer"], load
    )
    loading = [LoadingExample("peft", "python", python)]
    if not read_adapter_config(request.folder / "adapter").get("target_parameters"):
        loading += _with_vllm("./base", request.folder / "adapter", "./adapter")
    return ExportCard("peft", "finetune", loading=loading)


def _with_vllm(base: str, adapter: Path, place: str) -> list[LoadingExample]:
    """Returns how vLLM serves an adapter; nothing where its rank is larger than vLLM takes."""
    config = read_adapter_config(adapter)
    rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]) if "r" in config else None
    allowed = next((most for most in _RANKS if rank is not None and most >= rank), None)
    if allowed is None:
        return []
    code = f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {allowed} --lora-modules tuned={place}"
    return [LoadingExample("vLLM", "sh", code)]
