"""A layer as adapters and quantizers see it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from graftkit.errors import ModelError

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.frozen_weight import FrozenWeight

__all__ = ["Layer", "LayerInfo", "LayerKind", "OriginalWeights"]

LayerKind = Literal["linear", "conv1d", "experts", "embedding"]
"""How an architecture stores a weight: `[out, in]`, `[in, out]` as GPT-2 does, one matrix an expert in a stack, or as
the embedding `[in, out]`, whose inputs are ids: each is a row of it."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """What is known of a layer before its weight is read. Its weight is `[out, in]`, whatever its kind.

    Attributes:
        path: Its dotted path in the model.
        kind: "linear" for a weight `[out, in]`, "conv1d" for GPT-2's, which is stored as `[in, out]`, "experts" for
            the matrices of a mixture's experts in one tensor, "embedding" for that of the tokens (`EmbeddingWeight`).
        out_features: Numbers that it gives.
        in_features: Numbers that it takes; of an embedding, how many ids there are.
        bias: Whether it adds a bias.
        file_bytes: How many bytes the model's file stores its weight in, as one that a quantizer may take over
            (`AdoptingQuantizer`); None where it has the weight otherwise, or there is no file.
    """

    path: str
    kind: LayerKind
    out_features: int
    in_features: int
    bias: bool = False
    file_bytes: int | None = field(default=None, compare=False)

    @property
    def transposed(self) -> bool:
        """Whether the architecture itself stores the weight as `[in, out]`."""
        return self.kind in ("conv1d", "embedding")


class OriginalWeights(Protocol):
    """What a layer asks for its weight in the base model's files, and for its quantizer."""

    def original(self, layer: LayerInfo) -> torch.Tensor | None:
        """Returns the weight, `[out, in]`, float32, on any device; None where its frozen weight is all there is of it.

        Raises:
            ModelError: It can't be read.
        """

    def quantize(self, weight: torch.Tensor, layer: LayerInfo) -> FrozenWeight:
        """Stores a matrix `[out, in]` as the layer's own weight was stored."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer that is going to be adapted.

    Later versions may have more attributes.

    Attributes:
        info: Its path, kind and sizes.
        weight: The frozen weight, `[out, in]`.
        bias: The frozen bias, `[out]`, in the type of the computation, or None. It is added after the adapted weight,
            by whoever calls that.
        generator: The source of every random number that the start needs, made from the run's seed and the layer's
            path.
        originals: Where `original` and `requantize` have it from, or None.
    """

    info: LayerInfo
    weight: FrozenWeight
    bias: torch.Tensor | None
    generator: torch.Generator
    originals: OriginalWeights | None = None

    def original(self) -> torch.Tensor:
        """Reads the weight as the base model's files hold it, before it was rounded or quantized.

        Methods that start from it are PiSSA (Meng et al., 2024, https://arxiv.org/abs/2404.02948), LoftQ (Li et al.,
        2023, https://arxiv.org/abs/2310.08659) and CorDA (Yang et al., 2024, https://arxiv.org/abs/2406.05223). It is
        read each time that this is called, and not kept. A weight that the file itself holds quantized is
        dequantized.

        Returns:
            `[out, in]` whatever the layer's kind, float32, on the device of `weight`; it is the caller's own.

        Raises:
            ModelError: It can't be read, or the model was made without its files.
        """
        device = next(self.weight.parameters()).device
        found = self._files().original(self.info)
        return self.weight.dequantize().clone() if found is None else found.to(device)

    def requantize(self, weight: torch.Tensor) -> FrozenWeight:
        """Stores another matrix for this layer, as the run's quantizer stored its own weight.

        What is left of the original weight once the adapter's start is taken off it, for one. An adapted weight takes
        it over with `AdaptedWeight.replace_frozen`.

        Args:
            weight: `[out, in]`, floating point, any device; it is rounded to the type of the computation first.

        Raises:
            ValueError: The weight holds NaN or infinity, or has another shape.
            ModelError: The model was made without its files.
        """
        sizes = (self.info.out_features, self.info.in_features)
        if tuple(weight.shape) != sizes:
            raise ValueError(f"'{self.info.path}' has a weight {list(sizes)}; this one is {list(weight.shape)}")
        return self._files().quantize(weight, self.info)

    def _files(self) -> OriginalWeights:
        if self.originals is None:
            raise ModelError(
                "its original weight was asked for, but the model was made without its files",
                where=self.info.path,
                hint="Give `originals` to `adapt`, or to `Layer`.",
            )
        return self.originals
