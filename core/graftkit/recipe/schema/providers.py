"""The sections that name a provider."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from graftkit.interfaces.config import StrictModel
from graftkit.recipe.schema.short_forms import one_alone

__all__ = [
    "AdapterSection",
    "ExportSection",
    "MetricSection",
    "ProviderSection",
]

_DEVICE_NAMES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
"""What files and folders can't be called on Windows, whatever follows after a dot."""


class ProviderSection(StrictModel):
    """A provider by name, with its own fields beside: `nf4`, or `{use: nf4, double_quant: true}`."""

    model_config = ConfigDict(extra="allow")

    use: str = Field(min_length=1, description="the provider's name")

    @property
    def options(self) -> dict[str, Any]:
        """The provider's own fields."""
        return dict(self.model_extra or {})


class AdapterSection(ProviderSection):
    """An adapter, and which layers it goes on; or one that there is already, which is trained on."""

    use: str = Field(default="", description="the provider's name; that of the method in `from` when left out")
    __annotations__["from"] = str | None  # a keyword of Python's, which no attribute is called by
    locals()["from"] = Field(
        default=None,
        min_length=1,
        description="a folder with an adapter in PEFT's format: training goes on with it, by its own method, rank, "
        "alpha and targets",
    )
    targets: Annotated[list[str], BeforeValidator(one_alone)] = Field(
        default=["all-linear"],
        min_length=1,
        description="layers to adapt: all-linear, names (q_proj), paths or patterns (*.self_attn.*); a mixture's "
        "experts, the output layer and the embedding where they are named (experts, lm_head, embed_tokens)",
    )
    modules_to_save: Annotated[list[str], BeforeValidator(one_alone)] = Field(
        default=[],
        description="modules that are trained as wholes beside the adapter, each a name or the end of a dotted path: "
        "the output layer, the embedding, norms (lm_head, embed_tokens, norm)",
    )
    ensure_weight_tying: bool = Field(
        default=False,
        description="whether embedding and output layer stay one matrix where the base model ties them and "
        "modules_to_save names one; else that one becomes a matrix of its own, as in PEFT",
    )

    @property
    def origin(self) -> str | None:
        """The folder of the adapter that training goes on with: `from`."""
        found: str | None = getattr(self, "from")
        return found

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not self.use and self.origin is None:
            raise ValueError("'adapter.use' is missing\nthe provider's name, unless `from` names an adapter's folder")
        if self.modules_to_save and self.origin is not None:
            raise ValueError(
                "adapter.modules_to_save: an adapter that is trained on keeps its whole modules\nleave it out beside "
                "adapter.from"
            )
        if self.ensure_weight_tying and not self.modules_to_save:
            raise ValueError(
                "adapter.ensure_weight_tying is of adapter.modules_to_save\nname the embedding and the output layer "
                "there, or leave it out"
            )
        return self


class ExportSection(ProviderSection):
    """An exporter, and the name of its folder."""

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="the folder's name under exports/; the exporter's name when left out",
    )

    @field_validator("name")
    @classmethod
    def _nameable_everywhere(cls, name: str | None) -> str | None:
        """Refuses names of devices on Windows, and names that lose their last dot there: exports are copied."""
        if name and (name.endswith(".") or _DEVICE_NAMES.fullmatch(name.partition(".")[0])):
            raise ValueError(f"export.name: no folder can be called '{name}' on Windows")
        return name

    @property
    def folder(self) -> str:
        """The name of the folder under `exports/`."""
        return self.name or self.use.rpartition(":")[2].rpartition(".")[2]


class MetricSection(ProviderSection):
    """A metric, and the name that its score is reported under."""

    name: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        description="its name in reports; the metric's own when left out",
    )

    @property
    def label(self) -> str:
        """The name that its score is reported under."""
        return self.name or self.use.rpartition(":")[2].rpartition(".")[2]
