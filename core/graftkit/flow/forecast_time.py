"""How fast a training will be: passes of its size are timed through few of the layers, with random weights."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from graftkit.flow.planning.targets import chosen_targets
from graftkit.flow.preparation.check_model import offloads
from graftkit.host.host import PluginHost
from graftkit.interfaces.architecture import WITHOUT_LOGITS, head_of
from graftkit.interfaces.model_source import TensorInfo
from graftkit.model.activation_checkpointing import checkpoint_blocks
from graftkit.model.adapt import adapt
from graftkit.model.head import head_parameters
from graftkit.model.load import Loader
from graftkit.model.model_plan import plan_base_model
from graftkit.model.originals import FileOriginals
from graftkit.model.packing import Packing, use_packing
from graftkit.model.skeleton import build_skeleton
from graftkit.model.twin import count_layers, fewest_layers, with_layers
from graftkit.recipe.bind import BoundRecipe
from graftkit.training.batch import PackedBatch
from graftkit.training.dry_run import PassSizes
from graftkit.training.head_loss import HeadPass
from graftkit.training.loss import TokenLoss

__all__ = ["TimedPass", "time_a_pass"]

_ROUNDS = 3
"""Passes that are timed, after one that warms up; the shortest counts."""


@dataclass(frozen=True, slots=True)
class TimedPass:
    """How long a forward and backward pass takes.

    Attributes:
        seconds: Of all layers.
        tokens: Its tokens.
        layers: How many layers were timed.
    """

    seconds: float
    tokens: int
    layers: tuple[int, ...]

    @property
    def tokens_per_second(self) -> float:
        """How many tokens a second of training sees."""
        return self.tokens / self.seconds


def time_a_pass(
    bound: BoundRecipe,
    host: PluginHost,
    config: Mapping[str, Any],
    packing: Packing,
    device: torch.device,
    largest: PassSizes,
) -> TimedPass:
    """Times a pass through as few layers as have every kind of them, and through twice as many.

    What the second takes more, each further layer of the model takes, too. A model of no more layers is timed as it is.
    Type, quantizer, adapter and checkpointing are the recipe's; the weights are random.

    Args:
        bound: The recipe.
        host: The plugins.
        config: The model's configuration.
        packing: Whether sequences share a pass.
        device: Where it computes.
        largest: The sizes of the largest pass.

    Raises:
        Exception: A small model of this kind can't be built, or the memory has no room for it.
    """
    layers, few = count_layers(config), fewest_layers(config)
    counts = (few, 2 * few) if 0 < 2 * few < layers else (layers,)
    times = []
    for count in counts:
        cut = with_layers(config, count) if count < layers else config
        times.append(_seconds(bound, host, _RandomFiles(cut), packing, device, largest))
    seconds = times[0]
    if len(times) > 1:
        seconds += (layers - few) * max(0.0, times[1] - times[0]) / few
    return TimedPass(seconds, largest.tokens, counts)


def _seconds(
    bound: BoundRecipe,
    host: PluginHost,
    files: Any,
    packing: Packing,
    device: torch.device,
    largest: PassSizes,
) -> float:
    """Returns the shortest time that a pass took."""
    create, dtype = host.registry.create, getattr(torch, bound.recipe.training.dtype)
    quantizer = create(bound.quantizer.registered, bound.quantizer.config)
    planned = plan_base_model(files, dtype)
    targets = chosen_targets(bound, planned.layers, planned.stacks, planned.outer)
    network: Any = Loader(planned, quantizer, device).load()
    use_packing(network, packing)
    adapter = create(bound.adapter.registered, bound.adapter.config)
    adapt(network, adapter, targets, seed=0, originals=FileOriginals(files, quantizer, device, dtype))
    if bound.recipe.memory.checkpoint == "blocks":
        checkpoint_blocks(network, offload=offloads(bound.recipe, device))
    for parameter in head_parameters(network, planned.head).values():
        parameter.requires_grad_(True)
    network.train()
    scores = head_of(files.config) in WITHOUT_LOGITS
    loss: TokenLoss | HeadPass = (HeadPass if scores else TokenLoss)(network, packed=packing.packed)
    batches = _batches(network, packing, device, largest)
    times = []
    with torch.random.fork_rng(devices=[device.index or 0] if device.type == "cuda" else []):
        for _ in range(1 + _ROUNDS):
            start = time.perf_counter()
            for batch in batches:
                loss.backward(batch, 1.0).item()  # waits for the device
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
    return min(times[1:])


def _batches(network: Any, packing: Packing, device: torch.device, largest: PassSizes) -> list[PackedBatch]:
    """Returns a pass, or one for each sequence where they run one by one; the last tokens of each are learnt."""
    random, size = torch.Generator().manual_seed(0), int(network.get_input_embeddings().weight.shape[0])
    ids = [torch.randint(size, (length,), generator=random).to(device) for length in largest.lengths]
    share = min(1.0, largest.learnt / largest.tokens)
    found = []
    for sequences in [tuple(ids)] if packing.packed else [(sequence,) for sequence in ids]:
        tokens = sum(map(len, sequences))
        places = torch.arange(tokens, device=device)[: max(1, int(share * tokens))]
        found.append(PackedBatch(sequences, places, torch.zeros_like(places), None, float(len(places)), {}, {}))
    return found


class _RandomFiles:
    """Files of a model of which the configuration alone is known, with random weights."""

    files: tuple[Path, ...] = ()
    tokenizer_backend = ""
    reference = "a model of random weights"

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config

    @cached_property
    def tensors(self) -> Mapping[str, TensorInfo]:
        parameters = build_skeleton(self.config, self.reference).named_parameters()
        return {name: TensorInfo(tuple(parameter.shape), "F32") for name, parameter in parameters}

    def read(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name in self.tensors:
            yield name, self.tensor(name)

    def tensor(self, name: str) -> torch.Tensor:
        shape = self.tensors[name].shape
        random = torch.Generator().manual_seed(len(name))
        return torch.randn(shape, generator=random) * (shape[-1] ** -0.5 if shape else 1.0)

    def save_tokenizer(self, folder: Path) -> None:
        raise NotImplementedError
