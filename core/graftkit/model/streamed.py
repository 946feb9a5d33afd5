"""A trained model whose base stays in its files: what merging one layer after the other needs, and no more."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from graftkit.errors import ModelError
from graftkit.interfaces.adapter import Adapter
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import Layer, LayerInfo
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.stored_weight import StoredWeight
from graftkit.model.adapt import AdaptedModel
from graftkit.model.file_tensors import read_tensor, read_tensors
from graftkit.model.made_weight import MadeWeight
from graftkit.store.fingerprint import derived_seed

__all__ = ["FileWeights", "StreamedModel"]


@dataclass(frozen=True, slots=True, eq=False)
class FileWeights:
    """The tensors of a base model that is not quantized, by its files' names, each read when it is asked for.

    Attributes:
        files: The opened base model; every tensor is a plain one of floating point.
        layers: The linear layers inside the blocks, by path; the weight of each is a tensor of its own, `[out, in]`.
        dtype: What training computed in: weights are rounded to it first.
    """

    files: BaseModelFiles
    layers: Mapping[str, LayerInfo]
    dtype: torch.dtype

    def as_trained_on(self, name: str, found: torch.Tensor | StoredWeight) -> torch.Tensor:
        """Returns a tensor of the files as training computed with it, float32.

        Raises:
            ModelError: It is none of floating point, or holds NaN or infinity.
        """
        reference = self.files.reference
        if isinstance(found, StoredWeight):
            raise ModelError(f"tensor '{name}' is stored as {found.kind}", where=reference)
        tensor = found.to(self.dtype).float()
        if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():  # the sum takes a tenth of the time
            raise ModelError(f"tensor '{name}' holds NaN or infinity", where=reference, hint="Download it again.")
        return tensor

    def adapted(self, adapter: Adapter, targets: Sequence[str]) -> dict[str, Any]:
        """Puts an adapter on layers whose weights stay in the files."""
        return {
            path: adapter.attach(
                Layer(
                    self.layers[path],
                    MadeWeight(self.layers[path], partial(self._read, f"{path}.weight")),
                    None,
                    torch.Generator().manual_seed(derived_seed(0, "adapter", path)),
                    self,
                )
            )
            for path in targets
        }

    def original(self, layer: LayerInfo) -> torch.Tensor:
        """Reads a layer's weight, `[out, in]`, float32, as the files have it."""
        return read_tensor(self.files, f"{layer.path}.weight").to(torch.float32)  # type: ignore[union-attr]

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
        """Keeps a matrix as it is: the files' weights are not quantized."""
        return MadeWeight(layer, lambda: weight)

    def _read(self, name: str) -> torch.Tensor:
        return self.as_trained_on(name, read_tensor(self.files, name))


@dataclass(frozen=True, slots=True)
class StreamedModel(AdaptedModel):
    """An adapted model that is merged tensor by tensor from its base's files, under the names that those have.

    Nothing of transformers is imported for that. What else an exporter asks for is loaded then.

    Attributes:
        weights: The base.
        load: Loads the model as a whole.
    """

    weights: FileWeights | None = None
    load: Callable[[], AdaptedModel] | None = None

    def merged_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the whole model as `AdaptedModel.merged_tensors` does, in the order of the files."""
        return self._streamed(with_adapter=True)

    def base_tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields the model without its adapter, likewise."""
        return self._streamed(with_adapter=False)

    def published(self, tensors: Iterable[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
        """Yields tensors as they are: their names are those of the base's files."""
        yield from tensors

    @torch.no_grad()
    def _streamed(self, *, with_adapter: bool) -> Iterator[tuple[str, torch.Tensor]]:
        assert self.weights is not None
        adapted = self.adapted if with_adapter else {}
        for name, found in read_tensors(self.weights.files):
            tensor = self.weights.as_trained_on(name, found)
            path, _, kind = name.rpartition(".")
            core, change = adapted.get(path), None
            if core is not None:
                change = core.delta() if kind == "weight" else core.bias_delta()
            yield name, tensor if change is None else tensor + change

    @property
    def towers(self) -> frozenset[str]:
        """There are none: the base is a model of text alone."""
        return frozenset()

    @property
    def linear_layers(self) -> list[str]:
        """As `AdaptedModel` has them."""
        return self._loaded.linear_layers

    @property
    def transposed_layers(self) -> list[str]:
        """As `AdaptedModel` has them."""
        return self._loaded.transposed_layers

    @property
    def expert_targets(self) -> list[str]:
        """There are none."""
        return []

    @property
    def _loaded(self) -> AdaptedModel:
        assert self.load is not None
        return self.load()
