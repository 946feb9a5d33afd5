"""A recipe: its sections, and what they must agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from graftkit.interfaces.config import StrictModel
from graftkit.recipe.schema.data import DataSection
from graftkit.recipe.schema.evaluation import EvaluationSection
from graftkit.recipe.schema.providers import AdapterSection, ExportSection, ProviderSection
from graftkit.recipe.schema.short_forms import name_alone, one_alone, path_alone
from graftkit.recipe.schema.tokenizer import TokenizerSection
from graftkit.recipe.schema.training import MemorySection, TrainingSection

__all__ = [
    "ALTERNATIVES",
    "ModelSection",
    "PluginsSection",
    "Recipe",
    "with_defaults",
]

ALTERNATIVES = {"training": frozenset({"epochs", "steps"}), "tokenizer": frozenset({"extend", "train", "replace"})}
"""Keys of which a section says one at most, by the section: whoever says one is silent on none of them."""


class ModelSection(StrictModel):
    """The base model, and which source opens it: asked of the sources when left out."""

    path: str = Field(min_length=1, description="a folder, a .gguf file, package:NAME/FILE or a hub id")
    use: str | None = Field(default=None, description="the model source's name")


class PluginsSection(StrictModel):
    """Which plugins to leave out; and under a callback's name the settings of that."""

    model_config = ConfigDict(extra="allow")

    disable: list[str] = Field(default=[], description="names of plugins or of their distributions")

    @property
    def settings(self) -> dict[str, dict[str, Any]]:
        """The settings of each callback that is named, by its name."""
        return {name: dict(said) for name, said in (self.model_extra or {}).items()}

    @model_validator(mode="after")
    def _mappings(self) -> PluginsSection:
        odd = next((name for name, said in (self.model_extra or {}).items() if not isinstance(said, dict)), None)
        if odd is not None:
            raise ValueError(
                f"plugins.{odd}: a callback's settings are a mapping, {{}} for the defaults; plugins to leave out are "
                "listed under 'disable'"
            )
        return self


class Recipe(StrictModel):
    """One fine-tune-and-export flow.

    Example:
        >>> Recipe.model_validate({"model": "./m", "data": {"train": "a.jsonl"}}).adapter.use
        'lora'
    """

    model: Annotated[ModelSection, BeforeValidator(path_alone)] = Field(
        description="a folder, a .gguf file, package:NAME/FILE, a hub id, or {use: SOURCE, path: REFERENCE}"
    )
    tokenizer: TokenizerSection | None = Field(
        default=None, description="another vocabulary than the base model's: extend, train or replace"
    )
    data: DataSection = Field(description="the records")
    quantizer: Annotated[ProviderSection, BeforeValidator(name_alone)] | None = Field(
        default=None, description="how frozen weights are stored; none when left out, nf4 under qlora"
    )
    adapter: Annotated[AdapterSection, BeforeValidator(name_alone)] = Field(
        default=AdapterSection(use="lora"), description="what is trained"
    )
    objective: Annotated[ProviderSection, BeforeValidator(name_alone)] = Field(
        default=ProviderSection(use="sft"),
        description="what training minimizes: sft; dpo and others for preferences, grpo, classification and others",
    )
    training: TrainingSection = Field(default=TrainingSection(), description="how it is trained")
    memory: MemorySection = Field(default=MemorySection(), description="what a training step keeps in memory")
    evaluation: EvaluationSection = Field(default=EvaluationSection(), description="what is measured")
    export: Annotated[list[Annotated[ExportSection, BeforeValidator(name_alone)]], BeforeValidator(one_alone)] = Field(
        default=[], description="formats to write and prove"
    )
    proof: Literal["now", "later"] = Field(
        default="now",
        description="when exports are proved: by the run, or later by toolkit verify; until then they are unproved",
    )
    plugins: PluginsSection = Field(
        default=PluginsSection(), description="plugins to leave out, and settings of callbacks by their names"
    )

    @model_validator(mode="after")
    def _fits(self) -> Recipe:
        if self._says_tokens_per_step and self.max_length > self.training.tokens_per_step:
            raise ValueError(
                f"data.max_length ({self.max_length}) is more than training.tokens_per_step "
                f"({self.training.tokens_per_step}): no step could hold such a record; raise the second, lower the "
                "first, or leave one of them out"
            )
        if self.tokenizer and not self.tokenizer.changes_vocabulary and self.adapter.origin is None:
            raise ValueError("tokenizer: say one of extend, train and replace")
        if (
            self.tokenizer
            and self.training.steps is not None
            and self.tokenizer.embedding_warmup_steps >= self.training.steps
        ):
            raise ValueError(
                f"tokenizer.embedding_warmup_steps ({self.tokenizer.embedding_warmup_steps}) leaves none of the "
                f"{self.training.steps} steps of training.steps to the adapter"
            )
        if self.evaluation.every is not None and self.data.holdout == 0:
            raise ValueError("evaluation.every evaluates holdout records, but data.holdout is 0: raise it")
        folders = Counter(export.folder.lower() for export in self.export)  # as systems that ignore case see them
        repeated = sorted(folder for folder, number in folders.items() if number > 1)
        if repeated:
            raise ValueError(f"two exports would share the folder '{repeated[0]}': give one a name of its own")
        return self

    @property
    def max_length(self) -> int:
        """Tokens of a record at most."""
        most = self.training.tokens_per_step if self._says_tokens_per_step else 1024
        return self.data.max_length or min(1024, most)

    @property
    def _says_tokens_per_step(self) -> bool:
        return "tokens_per_step" in self.training.model_fields_set


def with_defaults(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns a run's recipe with the keys that it lacks since an earlier version wrote it: their defaults hold.

    Args:
        recipe: The recipe, as a manifest has it; one that this version can't read is returned as it is.
    """
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe
