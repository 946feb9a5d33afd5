"""A tiny model with an adapter in float32 on the CPU, and PEFT's with the same numbers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from graftkit.interfaces.architecture import load_pretrained
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.load import load_base_model
from graftkit.model.originals import FileOriginals
from graftkit_models.huggingface import HuggingFaceSource
from graftkit_quantizers.dense import Dense
from peft import LoraConfig as PeftConfig
from peft import get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

CPU = torch.device("cpu")


def adapted_model(folder: Path, adapter: Any, targets: Sequence[str], quantizer: Any = None) -> AdaptedModel:
    """Puts an adapter on some layers of a model."""
    files, quantizer = HuggingFaceSource().open(str(folder)), quantizer or Dense()
    network: Any = load_base_model(files, quantizer, device=CPU)
    originals = FileOriginals(files, quantizer, CPU, torch.float32)
    adapted = adapt(network, adapter, targets, seed=0, originals=originals)
    return AdaptedModel(network, "", files.config, None, adapter, adapted)  # type: ignore[arg-type]


def moved(model: AdaptedModel) -> AdaptedModel:
    """Moves what is trained away from its start."""
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.trainable_parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=random))
    return model


@torch.no_grad()
def merges_what_it_computes(model: AdaptedModel, folder: Path, ids: torch.Tensor, *, moves: float) -> None:
    """Asserts that a merged model, loaded by transformers, computes what the adapted one does.

    Args:
        model: The adapted one at its start, which is moved away from it.
        folder: The base model's folder, into which the merged one is written.
        ids: Token ids, of shape [examples, tokens].
        moves: How far the logits must have moved, at least.
    """
    before = model.network(input_ids=ids).logits
    expected = moved(model).network(input_ids=ids).logits
    (folder / "config.json").write_text(json.dumps(model.config))
    tensors = {name: tensor.contiguous().clone() for name, tensor in model.merged_tensors()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    assert (expected - before).abs().max() > moves
    torch.testing.assert_close(load_pretrained(folder)(input_ids=ids).logits, expected, rtol=0, atol=1e-5)


def peft_model(folder: Path, model: AdaptedModel, targets: Sequence[str], **fields: Any) -> Any:
    """Returns PEFT's model with the numbers of ours.

    Args:
        folder: The base model.
        model: Ours.
        targets: The layers, as PEFT's `target_modules` names them.
        fields: Of PEFT's config.
    """
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    theirs: Any = get_peft_model(base, PeftConfig(target_modules=[*targets], **fields))
    own = {f"base_model.model.{name}": tensor for name, tensor in model.adapter_state().items()}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(own.pop(own_name(name)))
    assert not own
    return theirs


def adapter_of_peft(base: Path, folder: Path, *, moved: float = 0.05, **fields: Any) -> Path:
    """Has peft make and save an adapter of random numbers.

    Args:
        base: The base model's folder.
        folder: Where to.
        moved: By how much what it trains beside its own factors, such as whole modules, is moved away from the base's.
        fields: Of PEFT's config.
    """
    network = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = get_peft_model(network, PeftConfig(task_type="CAUSAL_LM", init_lora_weights=False, **fields))
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if parameter.requires_grad and "lora_" not in name:
                    parameter.add_(moved * torch.randn(parameter.shape))
    made.save_pretrained(folder, save_embedding_layers=False)
    return folder


def own_name(name: str) -> str:
    """Returns what a parameter of PEFT's is called here."""
    return name.replace(".default", "").removesuffix(".weight").replace("lora_embedding_", "lora_")
