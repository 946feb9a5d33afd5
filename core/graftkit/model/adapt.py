"""Puts an adapter on the chosen layers, and keeps them by name."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from graftkit.articles import with_article
from graftkit.errors import ExportError, TargetError, TrainingError
from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.exporter import NewVocabulary, Twin
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import Layer
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import VocabularyChange
from graftkit.model.adapter_checks import check_delta, check_parts, check_unshared
from graftkit.model.experts import ExpertStack
from graftkit.model.grow import GrownVocabulary
from graftkit.model.head import head_parameters
from graftkit.model.linear import FrozenLinear
from graftkit.model.originals import FileOriginals
from graftkit.model.outer_layers import OuterLayer, adapts_outer_layer, outer_layer_at, ties_output, untied
from graftkit.model.parts import tower_tensors
from graftkit.model.rows import NewRowsEmbedding, NewRowsLinear
from graftkit.model.sharded import ShardedWeight
from graftkit.model.skeleton import build_skeleton
from graftkit.model.twin import published_twin
from graftkit.model.weight_names import published_tensors
from graftkit.model.whole import whole_parameters
from graftkit.store.fingerprint import derived_seed

__all__ = ["AdaptedModel", "adapt", "adapters_disabled", "merged"]

_PROJECTION = "frozen_projection"
"""The name of what is stored of a frozen weight that the adapter made."""
_PROJECTION_TOLERANCE = 0.02
"""How far it may be off, as a share of its largest number: another machine rounds a start otherwise."""


@dataclass(frozen=True, slots=True)
class AdaptedModel:
    """A frozen model with something trainable on it: what a run trains and exporters see.

    Attributes:
        network: The transformers model.
        reference: The base model as the recipe named it.
        config: The base model's configuration; where its embedding or output layer is adapted, one that ties neither.
        tokenizer: The tokenizer.
        adapter: The adapter's method.
        adapted: Every adapted layer by its dotted path, in the model's order.
        grown: The new rows of its embeddings, or None where the vocabulary is the base model's.
        generation_config: How answers are generated, with the keys of a `generation_config.json`.
        prompts: How it was asked in training: "chat" for the chat template, "plain" for the text alone.
        system: The system message that all conversations shared, or None.
        saved_modules: The names of parameters that an adapter's folder held as a whole, which are trained beside it; of
            a tied embedding and output layer both.
        unties: Whether its output layer or embedding is adapted, or its output layer has new rows of its own, and the
            base model ties the two.
        head: The dotted paths of the modules that are trained fully beside the adapter: a head that gives scores.
        processors: How images and sound become a multimodal model's inputs: the base's files by their names.
        pairs: Whether it scores pairs of texts.
    """

    network: nn.Module
    reference: str
    config: Mapping[str, Any]
    tokenizer: Tokenizer
    adapter: Adapter
    adapted: Mapping[str, AdaptedWeight]
    grown: GrownVocabulary | None = None
    generation_config: Mapping[str, Any] = field(default_factory=dict)
    prompts: Literal["chat", "plain"] = "chat"
    system: str | None = None
    saved_modules: Sequence[str] = ()
    unties: bool = False
    head: Sequence[str] = ()
    processors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pairs: bool = False

    def __post_init__(self) -> None:
        if adapts_outer_layer(self.network):
            object.__setattr__(self, "unties", self.unties or ties_output(self.network))
            object.__setattr__(self, "config", untied(self.config))

    @property
    def saved_tensors(self) -> dict[str, torch.Tensor]:
        """Whole parameters in the place of the base model's, by their names, float32.

        The adapter's folder held them so, or they are a head's.
        """
        names = [*self.saved_modules, *head_parameters(self.network, self.head)]
        return {name: self.network.get_parameter(name).detach().float() for name in names}

    @property
    def ties_saved(self) -> bool:
        """Whether two of the saved modules' parameters are one matrix: a tied embedding and output layer."""
        return len(whole_parameters(self.network, self.saved_modules)) < len(self.saved_modules)

    @property
    def change(self) -> VocabularyChange | None:
        """What became of the rows of its embeddings."""
        return self.grown.change if self.grown else None

    @property
    def vocabulary(self) -> NewVocabulary | None:
        """The new rows as exporters see them."""
        if self.grown is None:
            return None
        rows = {path: trained.rows.detach() for path, trained in self.grown.rows.items()}
        return NewVocabulary(self.grown.change, rows, tied=self.grown.output is None)

    @property
    def targets(self) -> list[str]:
        """The dotted path of every adapted layer."""
        return list(self.adapted)

    @property
    def linear_layers(self) -> list[str]:
        """The dotted path of every linear layer and embedding that is frozen, adapted or not, adaptable or not."""
        from transformers.pytorch_utils import Conv1D

        kinds = (FrozenLinear, nn.Linear, Conv1D, nn.Embedding)
        modules = dict(self.network.named_modules())
        return [
            name
            for name, module in modules.items()
            if isinstance(module, kinds) and not isinstance(modules[name.rpartition(".")[0]], ExpertStack)
        ]

    @property
    def expert_targets(self) -> list[str]:
        """The dotted path of every stack of experts that is adapted, each expert by itself."""
        owners = dict.fromkeys(name.rpartition(".")[0] for name in self.adapted)
        return [path for path in owners if isinstance(self.network.get_submodule(path), ExpertStack)]

    @property
    def transposed_layers(self) -> list[str]:
        """The linear layers whose weight the architecture stores as `[in, out]`, and such stacks of experts."""
        return [
            name
            for name, module in self.network.named_modules()
            if isinstance(module, FrozenLinear | ExpertStack)
            and module.transposed
            and not isinstance(module, OuterLayer)
        ]

    @property
    def towers(self) -> frozenset[str]:
        """The names of a multimodal model's tensors that text does not run through."""
        return tower_tensors(self.network)

    def trainable_parameters(self) -> dict[str, nn.Parameter]:
        """Returns every parameter that training changes, by layer and name."""
        return {
            f"{layer}.{name}": parameter
            for layer, weight in self.adapted.items()
            for name, parameter in weight.trainable_parameters().items()
        } | {**self.row_parameters(), **self.whole_parameters()}

    def rate_scales(self) -> dict[str, float]:
        """Returns the factors on the learning rate that are not 1, by layer and name.

        Raises:
            TrainingError: The adapter names a parameter that is not trained, or a factor that is no positive number.
        """
        scales: dict[str, float] = {}
        for layer, weight in self.adapted.items():
            own = weight.trainable_parameters()
            for name, scale in weight.rate_scales().items():
                if name not in own or not (0 < scale < math.inf):
                    raise TrainingError(
                        f"the adapter scales the learning rate of '{name}' by {scale}; it trains {', '.join(own)}",
                        where=layer,
                        hint="rate_scales() gives a positive number for a trainable parameter: mend the adapter.",
                    )
                scales[f"{layer}.{name}"] = scale
        return {name: scale for name, scale in scales.items() if scale != 1}

    def row_parameters(self) -> dict[str, nn.Parameter]:
        """Returns those of them that are new rows of the embeddings."""
        return self.grown.parameters() if self.grown else {}

    def whole_parameters(self) -> dict[str, nn.Parameter]:
        """Returns those of them that are a head's or a saved module's, by their names in the model."""
        return head_parameters(self.network, self.head) | whole_parameters(self.network, self.saved_modules)

    def adapter_state(self) -> dict[str, torch.Tensor]:
        """Returns every tensor that was trained, by layer and name: the adapter's, new rows, and whole parameters.

        Of a frozen weight that the adapter replaced there are a few numbers besides, by which another one is told.
        """
        trained = {
            f"{layer}.{name}": tensor
            for layer, weight in self.adapted.items()
            for name, tensor in weight.adapter_state().items()
        }
        whole = {**self.row_parameters(), **self.whole_parameters()}
        return trained | {name: tensor.detach() for name, tensor in whole.items()} | self._projections()

    def _projections(self) -> dict[str, torch.Tensor]:
        """Returns a projection of each frozen weight that the adapter put in the place of the base model's."""
        return {
            f"{layer}.{_PROJECTION}": _projected(weight.frozen)
            for layer, weight in self.adapted.items()
            if weight.replaced
        }

    def _check_replaced(self, state: Mapping[str, torch.Tensor]) -> None:
        for name, own in self._projections().items():
            other = state[name].to(own)
            if other.shape != own.shape or (other - own).abs().max() > _PROJECTION_TOLERANCE * own.abs().max():
                raise TrainingError(
                    "the frozen weight that the adapter made is not the one that it was trained on",
                    where=name.removesuffix(f".{_PROJECTION}"),
                    hint="It must follow from the layer and the seed alone: mend the adapter.",
                )

    def load_adapter_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what `adapter_state` gave.

        Raises:
            TrainingError: A tensor is missing, left over or of another shape, or a frozen weight that the adapter made
                is another than the one that it was trained on.
        """
        own = self.adapter_state()
        missing, left_over = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        if missing or left_over:
            raise TrainingError(
                f"the adapter's tensors do not fit the model: {len(missing)} missing, {len(left_over)} left over, "
                f"such as {(missing + left_over)[0]}"
            )
        self._check_replaced(state)
        state = {name: tensor for name, tensor in state.items() if not name.endswith(f".{_PROJECTION}")}
        for layer, weight in self.adapted.items():
            prefix = f"{layer}."
            mine = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            try:
                weight.load_adapter_state(mine)
            except ValueError as error:
                raise TrainingError(f"{layer}: {error}") from None
        for name, whole in {**self.row_parameters(), **self.whole_parameters()}.items():
            if whole.shape != state[name].shape:
                raise TrainingError(f"{name} has shape {list(state[name].shape)}, not {list(whole.shape)}")
            with torch.no_grad():
                whole.copy_(state[name])

    def merged_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the whole model, `W + delta` where a layer is adapted, one float32 tensor on the CPU at a time.

        Names and shapes are the architecture's own; buffers that it stores keep their type, and `towers` are as the
        base model's file has them.
        """
        return self._tensors(with_adapter=True)

    def base_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the model without its adapter, the new rows of its embeddings in place, as `merged_tensors` does.

        Raises:
            ExportError: The adapter put other frozen weights in the place of the base model's.
        """
        replaced = [layer for layer, weight in self.adapted.items() if weight.replaced]
        if replaced:
            raise ExportError(
                f"the adapter has put other frozen weights in the place of the base model's, on {len(replaced)} layers",
                where=replaced[0],
                hint="Without the adapter they are no base model: export merged.",
            )
        return self._tensors(with_adapter=False)

    def twin(self, *, short_windows: bool = True) -> Twin:
        """Returns a tiny model of the same architecture."""
        return published_twin(self.config, short_windows=short_windows)

    def published(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields tensors by the names, and in the shapes, that published files of the architecture have."""
        return published_tensors(build_skeleton(self.config, self.reference), self.network, tensors)

    def _tensors(self, *, with_adapter: bool) -> Iterator[tuple[str, torch.Tensor]]:
        inside: set[str] = set()
        tensors_of = merged if with_adapter else _frozen
        for path, module in self.network.named_modules():
            if isinstance(module, ExpertStack):
                inside.add(path)
                yield path, module.stacked(lambda layer: tensors_of(layer)[0]).cpu()
            if isinstance(module, FrozenLinear) and path.rpartition(".")[0] not in inside:
                inside.add(path)
                weight, bias = tensors_of(module)
                yield f"{path}.weight", (weight.T if module.transposed else weight).contiguous().cpu()
                if bias is not None:
                    yield f"{path}.bias", bias.cpu()
            if isinstance(module, NewRowsEmbedding | NewRowsLinear):
                inside.add(path)
                yield from self._grown_tensors(path, module)
        towers, seen = self.towers, set[int]()
        for name, parameter in self.network.named_parameters(remove_duplicate=False):  # one may be an adapted layer's
            if id(parameter) not in seen and not any(_ancestors(name, inside)):
                seen.add(id(parameter))
                tensor = parameter.detach().cpu()
                yield name, tensor if name in towers else tensor.float()
        yield from self._buffers()

    def _buffers(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields what a model stores besides its parameters, such as the biases of what chooses between experts."""
        for path, module in self.network.named_modules():
            for name, buffer in module.named_buffers(recurse=False):
                if name not in module._non_persistent_buffers_set:
                    yield f"{path}.{name}".removeprefix("."), buffer.detach().cpu()

    @torch.no_grad()
    def _grown_tensors(self, path: str, module: NewRowsEmbedding | NewRowsLinear) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields a matrix with its new rows in place; a tied one once, under the embedding's name."""
        assert self.grown is not None
        if path in self.grown.rows:
            weight = module.weight.detach().float().clone()
            weight[module.new.ids] = module.new.rows.detach()  # float32 as they are trained, whatever the matrix is
            yield f"{path}.weight", weight.cpu()
        bias = getattr(module, "bias", None)
        if bias is not None:
            yield f"{path}.bias", bias.detach().float().cpu()


def _ancestors(name: str, paths: set[str]) -> Iterator[str]:
    parts = name.split(".")
    return (".".join(parts[:end]) for end in range(1, len(parts)) if ".".join(parts[:end]) in paths)


def _frozen(layer: FrozenLinear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns a layer's frozen weight `[out, in]` and bias in float32."""
    return layer.frozen.dequantize(torch.float32), None if layer.bias is None else layer.bias.detach().float()


@torch.no_grad()
def merged(layer: FrozenLinear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Returns a layer's weight `[out, in]` and bias, float32, with what its adapter adds to them."""
    weight, bias = _frozen(layer)
    if isinstance(layer.core, AdaptedWeight):
        weight = weight + check_delta(layer.core, layer.core.delta(), weight)
        change = layer.core.bias_delta()
        if bias is not None and change is not None:
            bias = bias + change.to(bias.device)
    return weight, bias


def _projected(weight: FrozenWeight) -> torch.Tensor:
    """Returns `[4, 4]`, float32: the matrix between random vectors, always the same ones for its size."""
    dense, generator = weight.dequantize(torch.float32).cpu(), torch.Generator().manual_seed(0)
    left, right = (torch.randn(size, 4, generator=generator) for size in dense.shape)
    return left.T @ dense @ right


@contextmanager
def adapters_disabled(network: nn.Module) -> Iterator[None]:
    """Makes every adapted layer of a network compute what its frozen weight alone computes, as long as it lasts.

    New rows of the embeddings stay: they belong to the vocabulary, which the base model does not have.
    """
    enabled = [module for module in network.modules() if isinstance(module, AdaptedWeight) and module.enabled]
    for weight in enabled:
        weight.enabled = False
    try:
        yield
    finally:
        for weight in enabled:
            weight.enabled = True


def adapt(
    network: nn.Module, adapter: Adapter, targets: Sequence[str], *, seed: int, originals: FileOriginals | None = None
) -> dict[str, AdaptedWeight]:
    """Attaches the adapter to the target layers.

    What is attached is in training mode where the network is: a loaded model answers without dropout. Each layer
    draws its start from a generator of its own, made from the seed and its name, so that a layer's
    start does not depend on which others are adapted.

    Args:
        network: The model.
        adapter: The method.
        targets: The dotted paths of layers, embedding and output layer among them, and of stacks of experts, of which
            each is adapted.
        seed: The run's.
        originals: What an adapter is given that asks for a layer's weight before it was quantized.

    Raises:
        TargetError: A target is no frozen layer of this model, nor a stack of experts.
        TrainingError: The adapter put another frozen weight on a layer in a way that exports would not know of.
        PluginCallError: A layer has no parameters and state to train and store, or those of another layer.
    """
    adapted: dict[str, AdaptedWeight] = {}
    owners: dict[tuple[int, int], str] = {}
    for name in dict.fromkeys(name for target in targets for name in _layers_of(network, target)):  # each once
        layer = _layer_of(network, name)
        if not isinstance(layer, FrozenLinear):
            raise TargetError(f"'{name}' is {with_article(type(layer).__name__)}, which can't be adapted")
        generator = torch.Generator().manual_seed(derived_seed(seed, "adapter", name))
        weight = adapter.attach(Layer(layer.info, layer.frozen, layer.bias, generator, originals))
        check_parts(adapter, weight, name)
        check_unshared(adapter, weight, name, owners)
        _check_frozen(adapter, weight, layer)
        if weight.replaced and isinstance(layer.frozen, ShardedWeight):
            weight.frozen = layer.frozen.instead(weight.frozen)
        layer.core = weight.train(network.training)
        adapted[name] = weight
    if originals is not None:
        originals.forget()
    return adapted


def _layer_of(network: Any, path: str) -> nn.Module:
    """Returns the layer of a path; the model's own embedding or output layer is made one that can be adapted."""
    layer: nn.Module = network.get_submodule(path)
    own = isinstance(layer, nn.Linear | nn.Embedding) and hasattr(network, "config")
    return (outer_layer_at(network, path) or layer) if own else layer


def _check_frozen(adapter: Adapter, weight: AdaptedWeight, layer: FrozenLinear) -> None:
    """Refuses another frozen weight than the model's where exports would put the adapter on the model's."""
    if weight.frozen is not layer.frozen and not weight.replaced:
        raise TrainingError(
            "the adapter has another frozen weight than the one that it was given",
            where=layer.info.path,
            hint="It must say so with replace_frozen(weight): mend the adapter.",
        )
    if weight.replaced and adapter.peft_config() is not None:
        raise TrainingError(
            "the adapter has put another frozen weight in the place of the base model's, which PEFT would put it on",
            where=layer.info.path,
            hint="peft_config() must return None then: mend the adapter.",
        )


def _layers_of(network: nn.Module, target: str) -> list[str]:
    """Returns the target itself, or each expert's layer where it is a stack of them."""
    found = network.get_submodule(target)
    return [f"{target}.{expert}" for expert in range(len(found))] if isinstance(found, ExpertStack) else [target]
