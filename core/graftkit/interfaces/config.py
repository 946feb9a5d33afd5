"""The base of every provider's own recipe fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

__all__ = ["ProviderConfig", "StrictModel"]


class StrictModel(BaseModel):
    """A frozen model that refuses unknown keys and infinite numbers and converts no types ("16" is no integer)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class ProviderConfig(StrictModel):
    """The fields that a recipe may give to one provider.

    Give every field a type, bounds, a default and a `description`: `toolkit schema` and the errors show them.

    Attributes:
        preset: Sections of the recipe that an adapter fills in where the recipe is silent, so that one name can stand
            for a known combination: key by key, but a section that names a provider, or a list, as a whole. It
            fills any but `model`, `adapter` and `plugins`; no other kind of provider has one.
    """

    preset: ClassVar[Mapping[str, Any]] = {}

    def idle_patterns(self, paths: Sequence[str]) -> Iterable[tuple[str, str]]:
        """Returns an adapter's own patterns that hold for no layer; a recipe with one is refused before any work.

        Args:
            paths: The dotted path of every layer that is adapted.

        Returns:
            Each as the field's name and the pattern, which is a key of that field's mapping.
        """
        return ()
