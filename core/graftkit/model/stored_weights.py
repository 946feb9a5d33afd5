"""What a base model's files store, as a quantizer has it: taken over as it lies, or dense, and looked at either way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from graftkit.errors import ModelError
from graftkit.interfaces.frozen_weight import FrozenWeight
from graftkit.interfaces.layer import LayerInfo
from graftkit.interfaces.model_source import PLAIN, BaseModelFiles
from graftkit.interfaces.quantizer import AdoptingQuantizer, Quantizer
from graftkit.interfaces.stored_weight import StoredWeight
from graftkit.model.file_tensors import read_tensor
from graftkit.model.model_plan import ModelPlan, plan_base_model
from graftkit.model.weight_names import PlannedWeight

__all__ = ["StoredUse", "StoredWeights", "check_stored_weights"]

_LARGEST = 1e30
"""What no number of a weight exceeds: quantizers multiply by 127, add scales up, and half precision ends at 3.4e38."""


@dataclass(frozen=True, slots=True)
class StoredUse:
    """What becomes of the matrices of layers that a file holds in one quantized format.

    Attributes:
        kind: The format's name.
        kept: How many the quantizer takes over as they lie.
        anew: The others, which are dequantized and given to the quantizer.
        anew_bytes: The bytes that those take in the file; None where that can't be told from the headers.
        can_be_kept: Whether `quantizer: stored` would keep those that this quantizer does not.
    """

    kind: str
    kept: int
    anew: tuple[LayerInfo, ...]
    anew_bytes: int | None
    can_be_kept: bool


def check_stored_weights(files: BaseModelFiles, quantizer: Quantizer) -> list[StoredUse]:
    """Makes sure that each format that the files hold weights in can be used: by the quantizer, or dequantized.

    It reads one weight of a format, the smallest, and none of those that are plain floating point.

    Returns:
        What becomes of the layers' matrices in each format that is none of floating point, as far as that one tells.

    Raises:
        ModelError: One is of a format that neither the quantizer takes over nor the source dequantizes, or is damaged.
    """
    if all(info.dtype in PLAIN for info in files.tensors.values()):
        return []
    return StoredWeights(plan_base_model(files), quantizer, torch.device("cpu")).check()


class StoredWeights:
    """Makes weights of what is read from the files.

    Args:
        plan: The model.
        quantizer: Stores the weights of its linear layers.
        device: Where it computes.
    """

    def __init__(self, plan: ModelPlan, quantizer: Quantizer, device: torch.device) -> None:
        self._plan = plan
        self._files = plan.files
        self._quantizer = quantizer
        self._device = device

    @torch.no_grad()
    def check(self) -> list[StoredUse]:
        """Makes sure that the weights can be used whose stored type is no plain one, as far as one of each type tells.

        Returns:
            What becomes of those of layers.

        Raises:
            ModelError: Neither the quantizer nor the source knows what to do with one.
        """
        uses = []
        planned: dict[str, dict[str, PlannedWeight]] = {}
        for weight in self._plan.tensors.weights:
            for name in weight.sources:
                dtype = self._files.tensors[name].dtype
                if dtype not in PLAIN:
                    planned.setdefault(dtype, {})[name] = weight
        for kind, weights in planned.items():
            adoptable = [name for name, weight in weights.items() if self._plan.adoptable(weight)]
            sample = min(adoptable or weights, key=lambda name: math.prod(self._files.tensors[name].shape))
            found = read_tensor(self._files, sample)
            if not isinstance(found, StoredWeight):
                uses.append(self._use(kind, weights, [], can_be_kept=False))
                continue
            kept = next(self._adopting(sample, weights[sample], found), None) is not None
            left = [name for name in weights if not kept or name not in adoptable]
            if left and found.dequantize is None:
                raise self._unusable(left[0], found.kind)
            part = found.matrix(0) if found.matrix else found
            can_be_kept = bool(adoptable) and not kept and part.freeze is not None
            uses.append(self._use(kind, weights, adoptable if kept else [], can_be_kept=can_be_kept))
        return [use for use in uses if use.kept or use.anew]

    def taken_over(
        self, name: str, weight: PlannedWeight, found: torch.Tensor | StoredWeight
    ) -> list[FrozenWeight] | None:
        """Has the quantizer take over a weight of layers as the file stores it.

        Args:
            name: The file's tensor.
            weight: What the model has instead of it.
            found: What was read.

        Returns:
            What it makes of each layer's, or None where it does not take them over.

        Raises:
            ModelError: It is damaged.
        """
        made: list[FrozenWeight] = []
        for frozen in self._adopting(name, weight, found):
            if frozen is None:
                return None
            made.append(frozen)
        return made or None

    def dense(self, name: str, found: torch.Tensor | StoredWeight, target: str) -> torch.Tensor:
        """Returns a tensor as it is, or the matrix that a stored weight stands for.

        Args:
            name: The file's tensor.
            found: What was read.
            target: The model's tensor that it is made into, or a part of.

        Raises:
            ModelError: Neither the quantizer nor the source knows what the stored weight is; or it can't be computed
                with.
        """
        dense = self._dequantized(name, found) if isinstance(found, StoredWeight) else found
        self._check_numbers(name, dense, to_freeze=bool(self._plan.layers_of(target)))
        return dense

    def _use(self, kind: str, weights: Mapping[str, PlannedWeight], kept: list[str], *, can_be_kept: bool) -> StoredUse:
        anew = {name: self._plan.layers_of(weight.target) for name, weight in weights.items() if name not in kept}
        sizes = [self._files.tensors[name].nbytes for name, layers in anew.items() if layers]
        known = None if None in sizes else sum(size or 0 for size in sizes)
        made = tuple({layer.path: layer for layers in anew.values() for layer in layers}.values())
        return StoredUse(kind, sum(len(self._plan.adoptable(weights[name])) for name in kept), made, known, can_be_kept)

    def _adopting(
        self, name: str, weight: PlannedWeight, found: torch.Tensor | StoredWeight
    ) -> Iterator[FrozenWeight | None]:
        """Yields what the quantizer makes of each layer's stored weight, or None where it does not take it over."""
        if not isinstance(self._quantizer, AdoptingQuantizer):
            return
        if not isinstance(found, StoredWeight):
            found = StoredWeight(_type_name(found), tuple(found.shape), {"weight": found}, {})
        for number, layer in enumerate(self._plan.adoptable(weight)):
            part = found if layer.kind == "linear" else found.matrix(number) if found.matrix else None
            yield self._adopted(self._quantizer, name, layer, part) if part is not None else None

    def _adopted(
        self, quantizer: AdoptingQuantizer, name: str, layer: LayerInfo, stored: StoredWeight
    ) -> FrozenWeight | None:
        placed = {key: tensor.to(self._device) for key, tensor in stored.tensors.items()}
        try:
            frozen = quantizer.adopt(replace(stored, tensors=placed), layer)
        except ValueError as error:
            raise self._damaged(name, stored, str(error)) from None
        if frozen is None:
            return None
        if (frozen.out_features, frozen.in_features) != (layer.out_features, layer.in_features):
            raise self._damaged(name, stored, f"it makes a matrix {[frozen.out_features, frozen.in_features]}")
        self._check_numbers(name, frozen.dequantize(self._plan.dtype), to_freeze=True)
        return frozen

    def _dequantized(self, name: str, found: StoredWeight) -> torch.Tensor:
        if found.dequantize is None:
            raise self._unusable(name, found.kind)
        matrix = found.dequantize()
        if tuple(matrix.shape) != found.shape:
            raise self._damaged(name, found, f"it makes a matrix {list(matrix.shape)}")
        return matrix

    def _check_numbers(self, name: str, tensor: torch.Tensor, *, to_freeze: bool) -> None:
        """Makes sure that a tensor, of which one of the model's is made, can be computed with.

        Raises:
            ModelError: It holds NaN or infinity; or is a weight to be frozen, and holds larger numbers than quantizers
                and half precision can store.
        """
        if not tensor.numel():
            return
        found = tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor
        smallest, largest = (abs(float(end)) for end in found.aminmax())  # both NaN where one number is
        if not (math.isfinite(smallest) and math.isfinite(largest)):
            raise ModelError(
                f"tensor '{name}' holds NaN or infinity", where=self._files.reference, hint="Download it again."
            )
        if to_freeze and max(smallest, largest) > _LARGEST:
            raise ModelError(
                f"tensor '{name}' holds numbers up to {max(smallest, largest):.2g}, which no model computes with",
                where=self._files.reference,
                hint="It is damaged, or was written as another type: download it again.",
            )

    def _unusable(self, name: str, kind: str) -> ModelError:
        return ModelError(
            f"tensor '{name}' is stored as {kind}, which the recipe's quantizer does not take over "
            "and its source can't dequantize",
            where=self._files.reference,
            hint=f"Name a quantizer that keeps {kind}, or give the unquantized model.",
        )

    def _damaged(self, name: str, stored: StoredWeight, reason: str) -> ModelError:
        return ModelError(
            f"tensor '{name}' is damaged: stored as {stored.kind}, {reason}",
            where=self._files.reference,
            hint="Download it again.",
        )


def _type_name(tensor: torch.Tensor) -> str:
    """Returns the name that `TensorInfo` has for a tensor's type."""
    return {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}.get(tensor.dtype, str(tensor.dtype))
