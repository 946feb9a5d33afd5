"""A tiny trained model, as exporters are given one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from graftkit.flow.exports.probes import Probes
from graftkit.flow.exports.refusals import Planned
from graftkit.flow.exports.weight_sketch import sketches_of
from graftkit.flow.preparation.new_rows import changed_config
from graftkit.host.host import PluginHost
from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.layer import Layer
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.quantizer import Quantizer
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ChangeKind, ExtendableBackend, ExtensionSpec, VocabularyChange
from graftkit.model.adapt import AdaptedModel, adapt
from graftkit.model.dense_model import load_dense_model
from graftkit.model.grow import MakeRows, grow
from graftkit.model.linear import FrozenLinear
from graftkit.model.load import load_base_model
from graftkit.model.originals import FileOriginals
from graftkit.recipe.bind import Choice
from graftkit.testing.contracts.base import choose
from graftkit.testing.contracts.samples import normal
from graftkit.testing.tiny import TINY_SHAPES, tiny_model_folder
from graftkit.vocabulary.match import change_by_extension

__all__ = ["Everything", "TinyTrained", "train_tiny"]

CPU = torch.device("cpu")


@dataclass(frozen=True)
class TinyTrained:
    """A trained model and what it was made of.

    Attributes:
        model: What an exporter is given.
        files: The base model.
        source: What opened it.
        quantizer: What stored its linear layers.
        maker: The quantizer itself.
    """

    model: AdaptedModel
    files: BaseModelFiles
    source: Choice
    quantizer: Choice
    maker: Quantizer

    def base(self) -> nn.Module:
        """Makes the base model in full precision, as exporters are handed it for their proof."""
        return load_dense_model(self.files, self.maker)

    @property
    def originals(self) -> FileOriginals:
        """Reads the base model's own weights, and stores others as its layers' were."""
        return FileOriginals(self.files, self.maker, CPU, torch.float32)

    def planned(self) -> Planned:
        """Returns what is known of it before a weight is loaded, as exporters are asked about it."""
        model = self.model
        return Planned(
            model.config,
            model.reference,
            model.tokenizer,
            model.change,
            model.adapter,
            model.targets,
            generation_config=model.generation_config,
        )

    def probes(self) -> Probes:
        """Returns a few token sequences and what the trained model makes of them."""
        ids = [[257, 40, 41, 42, 99, 7, 7, 255, 12], list(range(60, 90))]
        if self.model.grown:
            ids += [[new, 40, 41, new] for new in self.model.grown.change.ids[-2:]]
        sketches = sketches_of(self.model.merged_tensors())
        return Probes(ids, [logits(self.model.network, probe) for probe in ids], sketches=sketches)

    def manifest(self) -> dict[str, Any]:
        """Returns what an export's manifest says of the model, as a proof reads it."""
        return {
            "model": {"reference": self.model.reference},
            "model_source": self.source.facts(),
            "quantizer": self.quantizer.facts(),
            "dtype": "float32",
        }


@torch.no_grad()
def logits(network: Any, ids: list[int]) -> torch.Tensor:
    """Returns one sequence's logits, `[tokens, vocabulary]`."""
    found: torch.Tensor = network(input_ids=torch.tensor([ids])).logits[0].float()
    return found


def train_tiny(
    host: PluginHost,
    folder: Path,
    *,
    shape: str = "llama",
    quantizer: str = "none",
    adapter: Adapter | None = None,
    some: bool = False,
    vocabulary: ChangeKind | None = None,
) -> TinyTrained:
    """Writes a tiny model, adapts it, and moves the adapter off its start as training would.

    Args:
        host: Where the base model's source, the quantizer, the tokenizer and lora come from.
        folder: Where to write.
        shape: One of `TINY_SHAPES`.
        quantizer: What stores the linear layers.
        adapter: What to put on them, lora of rank 4 if left out.
        some: Whether only some layers are adapted, in one block and not in the other.
        vocabulary: "extended" for more tokens than the model has spare rows, "trained" for ids that moved as well.
    """
    reference = str(tiny_model_folder(folder / "model", **TINY_SHAPES[shape]))
    source, storing = choose(host, "model-source", "huggingface", {}), choose(host, "quantizer", quantizer, {})
    files: BaseModelFiles = _create(host, source).open(reference)
    maker: Quantizer = _create(host, storing)
    network = load_base_model(files, maker, device=CPU)
    layers = [name for name, module in network.named_modules() if isinstance(module, FrozenLinear)]
    targets = [name for name in layers if ".1." in name and name.endswith(("q_proj", "down_proj"))] if some else layers
    backend = _create(host, choose(host, "tokenizer", files.tokenizer_backend, {}))
    tokenizer, change = _vocabulary(backend, backend.load(Path(reference)), vocabulary)
    grown = grow(network, change, _rows(change)) if change else None
    method = adapter or _create(host, choose(host, "adapter", "lora", {"rank": 4, "alpha": 8.0}))
    adapted = adapt(network, method, targets, seed=0)
    _move(adapted)
    config = changed_config(files.config, change, tokenizer)
    model = AdaptedModel(network.eval(), reference, config, tokenizer, method, adapted, grown)
    return TinyTrained(model, files, source, storing, maker)


def _vocabulary(
    backend: ExtendableBackend, base: Tokenizer, kind: ChangeKind | None
) -> tuple[Tokenizer, VocabularyChange | None]:
    """Returns a tokenizer with some sixty more tokens, and what that makes of a model's 320 rows."""
    if kind is None:
        return base, None
    words = [f"word{number:02d} " for number in range(40)]
    plan = backend.extend(base, words * 3, ExtensionSpec(70))
    change = change_by_extension(plan, 320)
    if kind == "extended":
        return plan.tokenizer, change
    kept = {id: (id + 100) % base.vocab_size for id in range(base.vocab_size)}
    return plan.tokenizer, VocabularyChange(kind, plan.tokenizer.vocab_size, change.ids, change.parts, kept)


def _rows(change: VocabularyChange) -> MakeRows:
    return lambda weight, role: 0.15 * normal(len(change.ids), weight.shape[1], seed=len(role))


def _create(host: PluginHost, choice: Choice) -> Any:
    return host.registry.create(choice.registered, choice.config)


@torch.no_grad()
def _move(adapted: Mapping[str, AdaptedWeight]) -> None:
    """Changes every trainable parameter by enough to change what the model says."""
    for place, weight in enumerate(adapted.values()):
        for number, parameter in enumerate(weight.trainable_parameters().values()):
            parameter.add_(0.2 * normal(*parameter.shape, seed=100 * place + number))


class Everything:
    """An adapter that PEFT has no form of: a whole matrix is added to the weight."""

    def attach(self, layer: Layer) -> EverythingWeight:
        """Adapts one layer; the matrix starts at zero."""
        return EverythingWeight(layer)

    def peft_config(self) -> Mapping[str, Any] | None:
        """There is none."""
        return None

    def peft_tensors(self, adapted: AdaptedWeight) -> Mapping[str, torch.Tensor]:
        """There are none: an exporter asks `peft_config` first."""
        raise NotImplementedError("peft_config() is None: PEFT has no such form")

    def from_peft(self, tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """There are none."""
        raise NotImplementedError("peft_config() is None: PEFT has no such form")


class EverythingWeight(AdaptedWeight):
    """A frozen weight and `change [out, in]`."""

    def __init__(self, layer: Layer) -> None:
        super().__init__(layer)
        self.change = nn.Parameter(torch.zeros(layer.info.out_features, layer.info.in_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps `[..., in]` to `[..., out]`."""
        y: torch.Tensor = self.frozen(x)
        return y + nn.functional.linear(x, self.change.to(x.dtype))

    def delta(self) -> torch.Tensor:
        """Returns `change`."""
        return self.change.detach()
