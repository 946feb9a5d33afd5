"""Writes a model's folder as transformers loads it: config.json, safetensors (sharded above a size), tokenizer."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from math import isfinite, isnan
from pathlib import Path
from typing import Any

import torch

from graftkit.errors import ModelError
from graftkit.exporting.config import StoredDtype
from graftkit.exporting.shards import write_shards
from graftkit.interfaces.architecture import is_multimodal, token_types
from graftkit.interfaces.exporter import LoadedAssets, ProofRequest
from graftkit.interfaces.json_file import write_json
from graftkit.interfaces.python_source import parse_python
from graftkit.interfaces.tokenizer import JoinsPairs, Tokenizer

__all__ = ["TOLERANCES", "TRUSTING_NOTHING", "load_assets", "load_tokenizer", "save_tokenizer", "write_model"]

TOLERANCES = {"float32": 1e-5, "bfloat16": 5e-2, "float16": 1e-2}
"""What the rounding of a stored type explains, as a share of the largest logit. Measured on SmolLM2-135M: 1.5e-6, 6e-3
and 8e-4; on tiny random models, whose logits lie close, 4 times that."""

TRUSTING_NOTHING: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True, "use_safetensors": True}
"""How transformers loads an export: it runs no code of it, asks nobody, and opens no pickle."""

_GENERIC = ("TokenizersBackend", "PreTrainedTokenizerFast")
"""The names of the class of transformers that reads a tokenizer.json as it is."""

_LIST = "MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS"
"""What transformers calls the types of models for which AutoTokenizer takes its own class, in tokenization_auto.py."""

_TRIED = (
    "  two  spaces\n\t",
    "don't I'LL 12345 x+=1;",
    "Grüße cafe\u0301 \u2167",
    "你好 مرحبا",
    "\U0001f642\u200d\u00a0",
)
_LATEST = 2000
"""So many of a vocabulary's pieces are tried besides, the latest ones."""

_Named = tuple[str, torch.Tensor]

_NOT_WRITTEN = {"torch_dtype", "transformers_version", "_name_or_path", "_from_model_config"}
"""What a configuration says of the file that it was in. By the last of these, transformers 4 may take generation
settings from config.json in the place of those that it stands beside."""


def write_model(
    folder: Path,
    tensors: Iterable[tuple[str, torch.Tensor]],
    config: Mapping[str, Any],
    tokenizer: Tokenizer,
    *,
    dtype: StoredDtype = "float32",
    shard_gigabytes: float = 5.0,
    generation: Mapping[str, Any] | None = None,
    towers: Collection[str] = (),
    processors: Mapping[str, Mapping[str, Any]] | None = None,
    published: Callable[[Iterable[_Named]], Iterable[_Named]] = lambda tensors: tensors,
) -> int:
    """Writes a model's folder as transformers loads it, one tensor in memory at a time.

    Args:
        folder: An existing folder.
        tensors: Every tensor by name, float32, such as `trained.merged_tensors()`.
        config: The content of config.json.
        tokenizer: Saved beside it.
        dtype: The type that tensors are stored in.
        shard_gigabytes: The size of a file of tensors at most.
        generation: The content of generation_config.json; none is written without any.
        towers: The names of tensors that are stored in the type that they have.
        processors: The content of files that say how images and sound become its inputs, by their names.
        published: Gives tensors the names that loaders look for, as `trained.published` does; left out, they have them.

    Returns:
        The bytes of its tensors.

    Example:
        ```python
        write_model(
            folder,
            trained.merged_tensors(),
            trained.config,
            trained.tokenizer,
            generation=trained.generation_config,
            towers=trained.towers,
            processors=trained.processors,
            published=trained.published,
        )
        ```
    """
    stored = getattr(torch, dtype)
    rounded = ((name, tensor if name in towers else _rounded(tensor, stored)) for name, tensor in tensors)
    total = write_shards(folder, published(rounded), shard_gigabytes=shard_gigabytes)
    written = {key: value for key, value in config.items() if key not in _NOT_WRITTEN}
    write_json(folder / "config.json", {**_encoded(written), "dtype": dtype})
    if generation:
        write_json(folder / "generation_config.json", {k: v for k, v in generation.items() if k not in _NOT_WRITTEN})
    save_tokenizer(tokenizer, folder, config)
    for name, settings in (processors or {}).items():
        write_json(folder / name, settings)
    if processors:
        _keep_template_apart(folder)
    if _has_its_own_class(str(config.get("model_type"))):
        _keep_generic_class(folder, tokenizer)
    return total


def _rounded(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return tensor.to(dtype) if tensor.is_floating_point() else tensor


def save_tokenizer(tokenizer: Tokenizer, folder: Path, config: Mapping[str, Any]) -> None:
    """Saves a tokenizer beside a model, such that transformers tells the model which text of a pair a token is of.

    By default few classes of transformers 5 give a model the types of tokens, though the tokenizer.json has them. Where
    the model has embeddings of them, tokenizer_config.json says that they are its inputs, unless it says otherwise.
    Where it knows no types, they are none: GPT-2, whose tokenizer may be BERT's, would add the embedding of the token 0
    to each token that is of the type 0.

    Args:
        tokenizer: The tokenizer.
        folder: Where; there is such a folder.
        config: The configuration of the model, with the keys of a `config.json`.
    """
    tokenizer.save(folder)
    path = folder / "tokenizer_config.json"
    if not path.is_file():
        return
    told = json.loads(path.read_bytes())
    inputs = told.get("model_input_names")
    if inputs is None and token_types(config) and _types_pairs(tokenizer):
        write_json(path, {**told, "model_input_names": ["input_ids", _TYPES, "attention_mask"]})
    elif isinstance(inputs, list) and _TYPES in inputs and not _knows_types(config):
        write_json(path, {**told, "model_input_names": [name for name in inputs if name != _TYPES]})


_TYPES = "token_type_ids"


def _knows_types(config: Mapping[str, Any]) -> bool:
    """Tells whether a model may go by the types of tokens: one with towers tells its images by them."""
    return "type_vocab_size" in config or is_multimodal(config)


def _types_pairs(tokenizer: Tokenizer) -> bool:
    try:
        return isinstance(tokenizer, JoinsPairs) and any(tokenizer.pair_layout.of([0], [0])[1])
    except ModelError:  # it lays out a pair in an odd way, and the model was not trained on pairs
        return False


def _has_its_own_class(model_type: str) -> bool:
    """Tells whether AutoTokenizer takes a class of its own for a type of models, whatever their tokenizer names.

    transformers' source is read for that and not imported, which takes seconds. Where it does not tell, it may.
    """
    listed = _listed_types()
    return listed is None or model_type in listed


@cache
def _listed_types() -> frozenset[str] | None:
    """Returns the set `MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS` of transformers; None where it is not to be found."""
    spec = find_spec("transformers")
    for place in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(place) / "models" / "auto" / "tokenization_auto.py"
        for node in parse_python(path.read_bytes()).body if path.is_file() else ():
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == _LIST and node.value is not None:
                return frozenset(ast.literal_eval(node.value))
    return None


def _keep_template_apart(folder: Path) -> None:
    """Writes the tokenizer's chat template as a file of its own, where AutoProcessor looks for it alone."""
    path, apart = folder / "tokenizer_config.json", folder / "chat_template.jinja"
    template = json.loads(path.read_bytes()).get("chat_template") if path.is_file() else None
    if isinstance(template, str) and not apart.exists():
        apart.write_text(template, encoding="utf-8", newline="")


def _keep_generic_class(folder: Path, tokenizer: Tokenizer) -> None:
    """Makes AutoTokenizer take the class that the tokenizer's files name where it would take another with other ids.

    For some types of models transformers 5 takes its own class whatever tokenizer_config.json names; that class puts
    its own way of splitting text around a vocabulary. An `auto_map` that is empty, and so names no code, keeps it from
    that.
    """
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_bytes()) if path.is_file() else {}
    if config.get("tokenizer_class") not in _GENERIC or "auto_map" in config:
        return
    loaded = load_tokenizer(folder)
    if type(loaded).__name__ in _GENERIC:
        return
    first = max(0, tokenizer.vocab_size - _LATEST)
    texts = [*_TRIED, *(tokenizer.decode([id]) for id in range(first, tokenizer.vocab_size))]
    if [loaded(text, add_special_tokens=False)["input_ids"] for text in texts] != tokenizer.encode_batch(texts, "all"):
        write_json(path, {**config, "auto_map": []})


def _encoded(value: Any) -> Any:
    """Returns `{"__float__": "Infinity"}` in the place of numbers that JSON lacks, as transformers 5 reads them."""
    if isinstance(value, Mapping):
        return {key: _encoded(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(inner) for inner in value]
    if isinstance(value, float) and not isfinite(value):
        return {"__float__": "NaN" if isnan(value) else "Infinity" if value > 0 else "-Infinity"}
    return value


def load_tokenizer(folder: Path) -> Any:
    """Loads the tokenizer of an export as transformers does that is only told the folder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)


def load_assets(request: ProofRequest, folder: Path) -> LoadedAssets:
    """Answers a request with the tokenizer and the generation settings that transformers loads from a model's folder.

    Args:
        request: The request.
        folder: The model's folder within the export.
    """
    from transformers import AutoConfig, GenerationConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    if (folder / "generation_config.json").is_file():
        settings = GenerationConfig.from_pretrained(folder, local_files_only=True)
    else:  # as transformers does where a model has none
        settings = GenerationConfig.from_model_config(config)
    return request.assets(load_tokenizer(folder), settings.to_dict(), config)
