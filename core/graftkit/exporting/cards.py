"""What model cards say of a model's folder and of an adapter's: which programs load them, and how."""

from __future__ import annotations

import shlex
from pathlib import Path

from graftkit.interfaces.export_card import CardRequest, ExportCard, LoadingExample
from graftkit.interfaces.peft_config import read_adapter_config

__all__ = ["merged_card", "peft_card", "vllm_examples"]

_IN_A_FOLDER = 'folder = "."  # this folder, or its name on the hub'
_SENTENCES = """from sentence_transformers import SentenceTransformer

model = SentenceTransformer(".")  # this folder, or its name on the hub
print(model.encode("Hello"{}))
"""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM takes as `--max-lora-rank`."""
_REFUSED = ("trainable_token_indices", "target_parameters", "modules_to_save", "use_dora")
"""The fields of adapter_config.json that say what vLLM takes in no adapter of a language model."""


def merged_card(request: CardRequest) -> ExportCard:
    """Returns the card of an export that is a model's folder."""
    load = "\n".join(
        [
            _IN_A_FOLDER,
            "tokenizer = AutoTokenizer.from_pretrained(folder)",
            f'model = {request.auto_class}.from_pretrained(folder, dtype="auto")',
        ]
    )
    python = request.python([f"from transformers import {request.names}"], load)
    loading = [LoadingExample("transformers", "python", python)]
    loading += [LoadingExample("vLLM", "sh", "vllm serve .")] if request.head == "language" else []
    if request.head == "embedding":
        prompt = next((f", prompt_name={name!r}" for name in request.prompts), "")
        loading.insert(0, LoadingExample("sentence-transformers", "python", _SENTENCES.format(prompt)))
        return ExportCard("sentence-transformers", "finetune", loading=loading)
    return ExportCard("transformers", "finetune", loading=loading)


def peft_card(request: CardRequest) -> ExportCard:
    """Returns the card of an export that is an adapter's folder, in PEFT's format."""
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
    python = request.python(["from peft import PeftModel", f"from transformers import {request.names}"], load)
    loading = [LoadingExample("peft", "python", python)]
    if request.head == "language" and Path(request.base).suffix.lower() != ".gguf":
        loading += vllm_examples(request.base, request.folder, ".")
    return ExportCard("peft", "adapter", loading=loading)


def vllm_examples(base: str, adapter: Path, place: str) -> list[LoadingExample]:
    """Returns how vLLM serves an adapter; nothing where vLLM would refuse it, as 0.33's `vllm.lora` does.

    It takes ranks up to 512, and layers' two matrices alone: no rows of embeddings, no whole modules, no magnitudes of
    DoRA, no tensors of experts that lie in one parameter.

    Args:
        base: What the base model is loaded by.
        adapter: The adapter's folder.
        place: How a reader of the card names that folder.
    """
    config = read_adapter_config(adapter)
    if any(config.get(key) for key in _REFUSED):
        return []
    rank = max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())]) if "r" in config else None
    allowed = next((most for most in _RANKS if rank is not None and most >= rank), None)
    if allowed is None:
        return []
    code = f"vllm serve {shlex.quote(base)} --enable-lora --max-lora-rank {allowed} --lora-modules tuned={place}"
    return [LoadingExample("vLLM", "sh", code)]
