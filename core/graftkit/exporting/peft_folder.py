"""The adapter alone, in PEFT's format: adapter_config.json and adapter_model.safetensors.

Keys are `base_model.model.<layer>.<tensor>`, as PEFT writes them for a wrapped causal language model; those of a
mixture's experts are named in `peft_experts`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from graftkit.errors import ExportError
from graftkit.exporting.peft_experts import PeftExperts, peft_experts, refused_experts
from graftkit.exporting.shards import save_tensors
from graftkit.interfaces.architecture import Head, head_of
from graftkit.interfaces.exporter import NewVocabulary, PlannedModel, TrainedModel
from graftkit.interfaces.json_file import write_json
from graftkit.interfaces.peft_config import LAYER_METHODS, check_adapter_config, read_adapter_config, stored_shapes
from graftkit.interfaces.quiet import importing_bitsandbytes

__all__ = ["NEW_ROWS", "load_adapter", "no_adapter", "resized", "target_modules", "write_adapter"]

_TASKS: Mapping[Head, str | None] = {
    "language": "CAUSAL_LM",
    "sequence": "SEQ_CLS",
    "token": "TOKEN_CLS",
    "masked": None,
    "embedding": "FEATURE_EXTRACTION",
}
"""PEFT's name of what a model is for, which says by which class it is wrapped; it has none for masked tokens."""

NEW_ROWS = "token_adapter.trainable_tokens_delta"
"""PEFT's name of an embedding's trained rows. They are the rows themselves, whatever the name says."""


def no_adapter(planned: PlannedModel) -> str | None:
    """Says why PEFT has no form of an adapter, whatever became of the vocabulary, or None."""
    fields = planned.adapter.peft_config()
    if fields is None:
        return "PEFT has no form of this adapter: export merged"
    method = str(getattr(fields.get("peft_type"), "value", fields.get("peft_type")))
    if method not in LAYER_METHODS:
        return f"PEFT's method {method} is none of those that are loaded from the export alone: export merged"
    experts = set(planned.expert_targets)
    layers = [target for target in planned.targets if target not in experts]
    moved = _taken_for_experts(str(planned.config["model_type"]), layers)
    if moved:
        return (
            f"of {planned.config['model_type']} models PEFT takes layers called {', '.join(moved)} for experts, "
            "wherever they are: export merged, or leave them out of adapter.targets"
        )
    return refused_experts(planned.config, fields, planned.expert_targets) if experts else None


def _taken_for_experts(model_type: str, targets: Sequence[str]) -> list[str]:
    """Returns the last names of the layers that PEFT would look for among a mixture's experts, which are one tensor.

    Adapters from before the experts were one tensor named each of them; PEFT still reads those, and can't tell a
    layer of the same name elsewhere, such as an expert that all tokens share.
    """
    try:
        with importing_bitsandbytes():
            from peft.utils.transformers_weight_conversion import _convert_peft_config_moe as convert
    except ImportError:
        return []
    model = SimpleNamespace(config=SimpleNamespace(model_type=model_type))
    names = {target.rpartition(".")[2] for target in targets}
    moved = []
    for name in sorted(names):
        config = SimpleNamespace(target_modules={name}, target_parameters=None, r=1, lora_alpha=1)
        try:
            convert(config, model)
        except ValueError:  # it wants the other half of a pair that is one tensor now
            config.target_modules = set()
        if name not in config.target_modules:
            moved.append(name)
    return moved


def write_adapter(trained: TrainedModel, folder: Path, base: str, *, new_rows: bool) -> dict[str, Any]:
    """Writes adapter_config.json and adapter_model.safetensors.

    New rows are stored alone, absolute, as PEFT's `trainable_token_indices` has them; a tied output layer's are the
    embedding's.

    Args:
        trained: The model.
        folder: An existing folder.
        base: What adapter_config.json calls the base model.
        new_rows: Whether the new rows of the embeddings are part of it, and whole modules that it was loaded with.

    Returns:
        Facts for the manifest: how many `tensors` there are, and under `expert_layouts` where those of each stack of
        experts lie, if any are adapted.
    """
    vocabulary = trained.vocabulary if new_rows else None
    experts = _experts(trained)
    layouts = experts.layouts
    layers = [layer for layer in trained.adapted if layer.rpartition(".")[0] not in layouts]
    tensors = {
        f"base_model.model.{layer}.{key}": tensor.cpu().contiguous()
        for layer in layers
        for key, tensor in trained.adapter.peft_tensors(trained.adapted[layer]).items()
    }
    for stack, layout in layouts.items():
        tensors |= layout.stacked(_experts_of(trained, stack))
    for layer, rows in vocabulary.rows.items() if vocabulary else ():
        tensors[f"base_model.model.{layer}.{NEW_ROWS}"] = rows.cpu().contiguous()
    saved = trained.saved_tensors if new_rows else {}
    head = list(trained.head) if new_rows else []
    own = {name.rpartition(".")[0] for name in saved if not name.startswith(tuple(f"{path}." for path in head))}
    modules = [*sorted(own), *head]
    tied = len({tensor.data_ptr() for tensor in saved.values()}) < len(saved)  # which a file keeps apart
    tensors |= {f"base_model.model.{name}": tensor.cpu().clone().contiguous() for name, tensor in saved.items()}
    save_tensors(tensors, folder / "adapter_model.safetensors", about={"format": "pt"})
    config = {
        **experts.fields,
        "target_modules": target_modules(layers, trained.linear_layers),
        "base_model_name_or_path": base,
        "revision": None,
        "task_type": _TASKS[head_of(trained.config)],
        "inference_mode": True,
        **(_token_indices(vocabulary) if vocabulary else {}),
        **({"modules_to_save": modules} if modules else {}),
        **({"ensure_weight_tying": True} if tied else {}),
    }
    write_json(folder / "adapter_config.json", config)
    said = {stack: layout.to_json() for stack, layout in layouts.items()}
    return {"tensors": len(tensors), **({"expert_layouts": said} if said else {})}


def _experts(trained: TrainedModel) -> PeftExperts:
    """Returns the method's fields, and where PEFT keeps what experts were adapted by, if any were."""
    stored_in_first = set(trained.transposed_layers)
    stacks = {stack: stack in stored_in_first for stack in trained.expert_targets}
    method = _method(trained)
    return peft_experts(trained.config, method, stacks) if stacks else PeftExperts(method, {})


def _experts_of(trained: TrainedModel, stack: str) -> list[dict[str, torch.Tensor]]:
    """Returns PEFT's tensors of each expert of a stack, in their order."""
    own = [adapted for layer, adapted in trained.adapted.items() if layer.rpartition(".")[0] == stack]
    return [{key: t.cpu() for key, t in trained.adapter.peft_tensors(expert).items()} for expert in own]


def _method(trained: TrainedModel) -> dict[str, Any]:
    """Returns the adapter's fields, and says where weights are transposed: peft asks for that, and warns otherwise.

    It is one field for all layers; of a model that has both kinds peft looks at each layer itself.
    """
    fields = dict(trained.adapter.peft_config() or {})
    if "fan_in_fan_out" in fields:
        fields["fan_in_fan_out"] = not trained.adapted.keys().isdisjoint(trained.transposed_layers)
    return fields


def _token_indices(vocabulary: NewVocabulary) -> dict[str, Any]:
    """Names the rows. Where output and embedding are tied, peft ties the new rows by itself; asked to, it warns."""
    ids = list(vocabulary.change.ids)
    return {"trainable_token_indices": {layer.rpartition(".")[2]: ids for layer in vocabulary.rows}}


def resized(model: Any, folder: Path) -> Any:
    """Gives a base model the rows that an adapter's new tokens need.

    Raises:
        ExportError: They would begin beyond the base model's last row.
    """
    indices = read_adapter_config(folder).get("trainable_token_indices") or {}
    needed = 1 + max((max(ids) for ids in indices.values()), default=-1)
    rows = model.get_input_embeddings().num_embeddings
    if needed > rows + max((len(ids) for ids in indices.values()), default=0):
        raise ExportError(
            f"it has trained rows up to {needed - 1:,}, of which the base model has {rows:,}, and not those between",
            where=str(folder / "adapter_config.json"),
            hint="Is this the base model that it was trained on?",
        )
    if needed > rows:
        model.resize_token_embeddings(needed, mean_resizing=False)
    return model


def load_adapter(model: nn.Module, folder: Path) -> Any:
    """Loads an adapter with peft onto a model, and makes sure that peft took every tensor.

    Raises:
        ExportError: A tensor was left over: peft itself says nothing about those. Or `check_adapter_config` refuses
            the configuration.
    """
    check_adapter_config(folder)
    with importing_bitsandbytes():
        from peft import PeftModel, get_peft_model_state_dict

    stored = set(stored_shapes(folder))
    # Its tensors take no memory until those of the file are put in their places: others than those are never filled.
    with warnings.catch_warnings():  # peft asks transformers by an old name, which says nothing to who trained
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing.*", FutureWarning)
        warnings.filterwarnings("ignore", "Model (has|with) `tie_word_embeddings=True`")  # as `notices` says
        loaded: nn.Module = PeftModel.from_pretrained(model, folder, low_cpu_mem_usage=True)
    taken = set(get_peft_model_state_dict(loaded, save_embedding_layers=False))
    if stored != taken:
        odd = sorted(stored ^ taken)
        raise ExportError(f"peft and the file disagree on {len(odd)} tensors, such as {odd[0]}", where=str(folder))
    return loaded


def target_modules(adapted: Iterable[str], linear: Iterable[str]) -> list[str]:
    """Returns the shortest list that means just these layers to PEFT, which compares the ends of paths.

    A layer that is a number in a list of others can be named by its whole path alone: blocks are numbers, too.

    Example:
        >>> target_modules(["l.0.q", "l.1.q"], ["l.0.q", "l.0.k", "l.1.q", "l.1.k"])
        ['q']
    """
    chosen = set(adapted)
    names = {layer.rpartition(".")[2] for layer in chosen}
    meant = {layer for layer in linear if layer.rpartition(".")[2] in names}
    certain = meant == chosen and not any(name.isdigit() for name in names)
    return sorted(names if certain else chosen)
