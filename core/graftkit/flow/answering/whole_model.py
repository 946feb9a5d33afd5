"""Loads a base model, or an export of a whole model, to be asked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from graftkit.errors import ModelError
from graftkit.flow.answering.reloaded_head import HeadModel
from graftkit.flow.answering.reloaded_model import ReloadedModel
from graftkit.flow.base_files.generation_settings import generation_config, stop_tokens
from graftkit.flow.base_files.open_model import load_tokenizer, open_model
from graftkit.flow.base_files.own_head import refuse_head
from graftkit.flow.folders.export_manifest import ExportManifest
from graftkit.flow.planning.head import with_facts
from graftkit.flow.preparation.check_model import pick_device
from graftkit.flow.preparation.settle_dtype import faster_dtype
from graftkit.flow.records.chat import options_of
from graftkit.host.host import PluginHost
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.model.load import Loader, load_base_model
from graftkit.model.model_plan import plan_base_model

__all__ = [
    "ends_of_answers",
    "gguf_in",
    "model_of_export",
    "opened_head",
    "opened_model",
    "plain_quantizer",
    "type_in_use",
    "whole_model",
]

_NO_ANSWERS = "only language models write answers"


def whole_model(source: str, manifest: ExportManifest, host: PluginHost) -> ReloadedModel:
    """Loads a base model or an export of a whole model, unquantized, as a language model."""
    _, files = open_model(host, gguf_in(Path(source)) or source)
    return opened_model(with_facts(files, None), source, manifest, host)


def opened_model(
    files: BaseModelFiles, source: str, manifest: ExportManifest, host: PluginHost, device: str = "auto"
) -> ReloadedModel:
    """Loads a model whose headers have been read, as `whole_model` does, on a device of a recipe's name for it."""
    refuse_head(files.config, files.reference, _NO_ANSWERS)
    backend = host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend))
    tokenizer = load_tokenizer(files, backend)
    place = pick_device(device)
    network = load_base_model(files, plain_quantizer(host), device=place, dtype=type_in_use(files, place))
    settings = generation_config(files, None, tokenizer, ())
    found = model_of_export(network, tokenizer, manifest.stop_tokens, manifest, settings)
    if found.stop:
        return found
    return replace(found, stop=ends_of_answers(found, source, stop_tokens(files, None, tokenizer, ())))


def opened_head(files: BaseModelFiles, manifest: ExportManifest, host: PluginHost, device: str = "auto") -> HeadModel:
    """Loads a model with a head whose headers have been read, on a device of a recipe's name for it.

    Raises:
        ModelError: Its files lack the head, as those of a base model do.
    """
    place = pick_device(device)
    planned = plan_base_model(files, type_in_use(files, place))
    if planned.new:
        raise ModelError(
            f"its files lack the head ({planned.new[0]}), which must be trained first", where=files.reference
        )
    backend = host.registry.create(host.registry.resolve("tokenizer", files.tokenizer_backend))
    tokenizer = load_tokenizer(files, backend)
    pairs = manifest.head.pairs if manifest.head else None
    return HeadModel(Loader(planned, plain_quantizer(host), place).load(), tokenizer, options_of(manifest.chat), pairs)


def type_in_use(files: BaseModelFiles, device: torch.device) -> torch.dtype:
    """Returns the type in which a model that no run describes computes.

    It is float32; on a CUDA device that multiplies bfloat16 faster it is that, unless most numbers are stored in 32
    bits: a model takes there what its file does, not twice that.
    """
    sizes: Counter[bool] = Counter()
    for tensor in files.tensors.values():
        sizes[tensor.dtype in ("F32", "F64")] += math.prod(tensor.shape)
    if device.type != "cuda" or sizes[True] > sizes[False]:
        return torch.float32
    found: torch.dtype = getattr(torch, str(faster_dtype(device).value))
    return found


def model_of_export(
    network: Any, tokenizer: Tokenizer, stop: Sequence[int], manifest: ExportManifest, settings: Mapping[str, Any]
) -> ReloadedModel:
    """Returns a model that is asked as an export's manifest says.

    Args:
        network: The model.
        tokenizer: Its tokenizer.
        stop: The ids that end an answer.
        manifest: What the export says of itself.
        settings: The generation settings of its base.
    """
    chat = options_of(manifest.chat)
    return ReloadedModel(network, tokenizer, stop, manifest.system, manifest.tools, chat, manifest.prompts, settings)


def ends_of_answers(found: ReloadedModel, source: str, known: Sequence[int]) -> list[int]:
    """Returns the tokens at which an answer ends: those that are known, and the one that ends a turn.

    Raises:
        ModelError: There is none.
    """
    stop = sorted({*known, *found.turn_stops})
    if not stop:
        raise ModelError("nothing says at which token an answer ends", where=source)
    return stop


def gguf_in(folder: Path) -> str | None:
    """Returns the one GGUF file that a folder without a config.json holds, as exports are that are one file.

    That of an adapter, adapter.gguf, is none that can be loaded alone.
    """
    there = [] if (folder / "config.json").exists() else sorted(folder.glob("*.gguf"))
    found = [path for path in there if path.name != "adapter.gguf"]
    return str(found[0]) if len(found) == 1 else None


def plain_quantizer(host: PluginHost) -> Quantizer:
    """Returns the quantizer that stores weights as they are."""
    found: Quantizer = host.registry.create(host.registry.resolve("quantizer", "none"))
    return found
