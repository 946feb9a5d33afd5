"""What an adapter has besides that starts from what goes into its layers on training tokens, as EVA does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.layer import LayerInfo

__all__ = ["InputObserver", "ObservedStart", "ObservingAdapter"]


@dataclass(frozen=True, slots=True)
class ObservedStart:
    """What an adapter makes of the inputs that it has seen.

    Attributes:
        tensors: What trainable parameters start as, by the layer's path and the parameter's name, in place of what
            `attach` gives; parameters that are not among them stay as attached.
        options: Recipe fields that take the place of the adapter's own, such as a `rank_pattern`: the adapter is made
            anew with them, and whoever loads the result reads them.
        left_out: The paths of layers that are not adapted after all.
    """

    tensors: Mapping[str, Mapping[str, torch.Tensor]]
    options: Mapping[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()


class InputObserver(Protocol):
    """Sees the inputs of layers, a pass at a time."""

    def observe(self, path: str, inputs: torch.Tensor) -> None:
        """Takes in some of a layer's inputs.

        Args:
            path: The layer's dotted path.
            inputs: `[tokens, in]`, float32, on the device that the layer computes on; not to be changed.
        """

    def start(self, shared: Mapping[str, str]) -> ObservedStart:
        """Makes the start of all that was seen.

        It must depend on what was seen alone: where a run goes on it is read, or made anew of the same tokens.

        Args:
            shared: Layers whose inputs are those of another layer, with the path of that one, which alone was observed.

        Raises:
            ValueError: Too little was seen.
        """


@runtime_checkable
class ObservingAdapter(Protocol):
    """An `Adapter` that asks for the inputs of its layers.

    Core runs training examples through the base model as it is stored, before anything is attached, in the order of
    training under the run's seed, and keeps the start in the run's folder.
    """

    @property
    def observed_tokens(self) -> int:
        """How many tokens' inputs it asks for; 0 for none. They are those from which a token in the loss is told."""

    def observer(self, layers: Sequence[LayerInfo]) -> InputObserver:
        """Returns what sees the inputs of these layers: all that are adapted and whose inputs are vectors."""
