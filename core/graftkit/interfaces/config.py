"""The base of every provider's own recipe fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationInfo

if TYPE_CHECKING:
    from graftkit.interfaces.layer import LayerInfo, LayerKind

__all__ = ["MOST_COUNTED", "ProviderConfig", "RecipePath", "StrictModel"]

MOST_COUNTED = 1_000_000_000
"""The largest number that a recipe counts records, steps or tokens by: beyond every use, and libraries take it."""


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and infinite numbers and converts no types ("16" is no integer)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


def _anchored(path: str, info: ValidationInfo) -> str:
    folder = info.context(info.field_name) if callable(info.context) else Path()
    return str(folder / Path(path).expanduser()) if path else path


RecipePath = Annotated[str, AfterValidator(_anchored)]
"""The type of a field of a `ProviderConfig` that is a path: where it is relative, it starts at the recipe's own folder.

That is the current one for what `--set` says, and where there is no recipe. An empty path stays empty.
"""


class ProviderConfig(StrictModel):
    """The fields that a recipe may give to one provider.

    Give every field a type, a default and a `description`, and a number a least and a largest value: `toolkit schema`
    and the errors show them.

    Attributes:
        preset: Sections of the recipe that an adapter fills in where the recipe is silent, so that one name can stand
            for a known combination: key by key, but a section that names a provider, or a list, as a whole. It
            fills any but `model`, `adapter` and `plugins`; no other kind of provider has one.
        rate_scale: Of an adapter and of an objective: what the learning rate that fits LoRA and fine-tuning is
            multiplied by where a recipe says none; both factors count.
        layer_kinds: Of an adapter: the kinds of layers that it can go on. What it puts on an embedding maps ids to
            rows; see `AdaptedWeight`.
    """

    preset: ClassVar[Mapping[str, Any]] = {}
    rate_scale: ClassVar[float] = 1.0
    layer_kinds: ClassVar[frozenset[LayerKind]] = frozenset(["linear", "conv1d", "experts"])

    def refusal(self, layer: LayerInfo) -> str | None:
        """Says why an adapter can't go on a layer, such as "it has no bias"; None where it can.

        Layers of other kinds than `layer_kinds` are refused without asking.
        A target that names other layers, too, leaves this one out; one that names no other is refused before any work.
        """
        return None

    def idle_patterns(self, paths: Sequence[str]) -> Iterable[tuple[str, str]]:
        """Returns an adapter's own patterns that hold for no layer; a recipe with one is refused before any work.

        Args:
            paths: The dotted path of every layer that is adapted; of a mixture's experts, that of their stack.

        Returns:
            Each as the field's name and the pattern, which is a key of that field's mapping.
        """
        return ()

    def trainable_parameters(self, layer: LayerInfo) -> int | None:
        """Returns how many numbers an adapter trains on a layer; None where that can't be told beforehand."""
        return None

    def stored_bytes(self, layer: LayerInfo, itemsize: int) -> int | None:
        """Returns how many bytes a quantizer stores a layer's weight in; None where that can't be told beforehand.

        Args:
            layer: The layer.
            itemsize: The bytes of one number of the weight that it is given: 4 in float32.
        """
        return None
