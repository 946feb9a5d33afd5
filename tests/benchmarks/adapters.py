"""What each adapter costs: a step on the seven layers of one of SmolLM2-135M's blocks, in NF4, 512 tokens.

    python tests/benchmarks/adapters.py [--rounds 15]

Forward, backward and the optimizer's step of every layer by itself, on random numbers; the adapters take turns, and
medians are told. Bytes are those of parameters, gradients and moments.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any

import torch
from graftkit import Layer, LayerInfo
from graftkit.interfaces.adapted_weight import AdaptedWeight
from graftkit.recipe.schema.training import TrainingSection
from graftkit.training.optimizers import Optimizers, RowTraining
from graftkit_adapters.config import LoraConfig
from graftkit_adapters.full import Full
from graftkit_adapters.lora import Lora
from graftkit_quantizers.config import Nf4Config
from graftkit_quantizers.nf4 import Nf4

SIZES = [(576, 576), (192, 576), (192, 576), (576, 576), (1536, 576), (1536, 576), (576, 1536)]
KINDS: dict[str, Any] = {
    "lora": (LoraConfig(), "adamw"),
    "lora, adamw-8bit": (LoraConfig(), "adamw-8bit"),
    "lora, sgd": (LoraConfig(), "sgd"),
    "dora": (LoraConfig(dora=True), "adamw"),
    "pissa": (LoraConfig(init="pissa"), "adamw"),
    "full": (None, "adamw"),
    "full, adamw-8bit": (None, "adamw-8bit"),
}


class Originals:
    """Gives every layer the same original weight."""

    def original(self, layer: LayerInfo) -> torch.Tensor:
        """Returns the weight, `[out, in]`."""
        return weight_of(layer.out_features, layer.in_features)

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> Any:
        """Stores a matrix in NF4."""
        return Nf4(Nf4Config(double_quant=True)).quantize(weight, layer)


def weight_of(rows: int, columns: int) -> torch.Tensor:
    """Returns a matrix, always the same of its shape."""
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)) / columns**0.5


class Side:
    """One adapter on all layers, and its optimizer."""

    def __init__(self, config: LoraConfig | None, optimizer: str) -> None:
        adapter: Any = Full() if config is None else Lora(config)
        start = time.perf_counter()
        self.layers: list[AdaptedWeight] = []
        for number, size in enumerate(SIZES):
            info, originals = LayerInfo(f"layers.{number}", "linear", *size), Originals()
            frozen = originals.quantize(weight_of(*size), info)
            self.layers.append(adapter.attach(Layer(info, frozen, None, torch.Generator(), originals)).train())
        self.start_seconds = time.perf_counter() - start
        self.parameters = {
            f"{number}.{name}": parameter
            for number, layer in enumerate(self.layers)
            for name, parameter in layer.trainable_parameters().items()
        }
        options = TrainingSection.model_validate({"steps": 1000, "optimizer": optimizer})
        self.optimizers, self.steps = Optimizers(self.parameters, options, RowTraining()), 0
        self.inputs = [torch.randn(512, columns, requires_grad=True) for _, columns in SIZES]

    def step(self) -> float:
        """Takes a step and returns its seconds."""
        start, self.steps = time.perf_counter(), self.steps + 1
        self.optimizers.begin(self.steps, 1000)
        for layer, x in zip(self.layers, self.inputs, strict=True):
            layer(x).square().mean().backward()
        self.optimizers.step()
        self.optimizers.forget_gradients()
        return time.perf_counter() - start

    @property
    def nbytes(self) -> int:
        """The bytes of parameters, gradients and what the optimizer keeps."""
        gradients = sum(parameter.nbytes for parameter in self.parameters.values())
        return gradients + sum(tensor.nbytes for tensor in self.optimizers.state().values())


def main() -> None:
    """Prints a line an adapter."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    sides = {name: Side(*given) for name, given in KINDS.items()}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds + 2):
        for name, side in sides.items():
            seconds[name].append(side.step())
    plain = statistics.median(seconds["lora"][2:])
    for name, side in sides.items():
        numbers = sum(parameter.numel() for parameter in side.parameters.values())
        median = statistics.median(seconds[name][2:])
        print(
            f"{name:18} {numbers:9,} numbers  {side.nbytes / 1e6:6.2f} MB  {median * 1000:6.1f} ms "
            f"({median / plain:.2f})  start {side.start_seconds:.2f} s"
        )


if __name__ == "__main__":
    main()
