"""What becomes of the base model's vocabulary."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
    model_validator,
)

from graftkit.interfaces.config import MOST_COUNTED, StrictModel
from graftkit.interfaces.vocabulary_limits import MOST_IDS, MOST_PIECES
from graftkit.recipe.schema.providers import ProviderSection
from graftkit.recipe.schema.short_forms import name_alone, one_alone, path_alone

__all__ = [
    "ExtendSection",
    "ReplaceSection",
    "TokenizerSection",
    "TrainVocabularySection",
]


class ExtendSection(StrictModel):
    """Tokens to add to the base model's tokenizer."""

    tokens: int = Field(default=2000, ge=0, le=MOST_IDS, description="how many tokens to learn, at most")
    corpus: Annotated[list[str], BeforeValidator(one_alone)] = Field(
        default=[], description="files, folders or patterns to learn from; the training records when left out"
    )
    min_frequency: int = Field(
        default=2, ge=1, le=MOST_COUNTED, description="how often a pair has to occur to become a token"
    )
    max_length: int | None = Field(default=None, ge=2, le=1_000_000, description="characters of a token at most")
    missing_bytes: bool = Field(default=True, description="add the bytes that a base lacks which loses text")
    words: list[str] = Field(default=[], description="texts that become one token each, whatever the corpus says")


class TrainVocabularySection(ProviderSection):
    """A tokenizer to train, and its family; the family's own fields beside."""

    vocab_size: int = Field(ge=2, le=MOST_PIECES, description="ids at most, special tokens included")
    corpus: Annotated[list[str], BeforeValidator(one_alone)] = Field(
        default=[], description="files, folders or patterns to learn from; the training records when left out"
    )
    special_tokens: list[str] | None = Field(
        default=None, description="special tokens besides the base model's; those it keeps, with their roles"
    )


class ReplaceSection(StrictModel):
    """Another tokenizer in place of the base model's."""

    path: str = Field(min_length=1, description="a tokenizer's folder or file, or a model whose tokenizer it is")
    use: str | None = Field(default=None, description="the tokenizer backend's name; asked of the backends else")


class TokenizerSection(StrictModel):
    """What becomes of the base model's vocabulary, and how its new rows are trained."""

    extend: ExtendSection | None = Field(default=None, description="add tokens to the base model's tokenizer")
    train: TrainVocabularySection | None = Field(default=None, description="train another one")
    replace: Annotated[ReplaceSection, BeforeValidator(path_alone)] | None = Field(
        default=None, description="take another one"
    )
    embedding_init: Annotated[ProviderSection, BeforeValidator(name_alone)] = Field(
        default=ProviderSection(use="mean"), description="what the new rows of the embeddings start as: an initializer"
    )
    embedding_learning_rate: float = Field(
        default=3e-4, ge=1e-12, lt=1, description="the highest rate of the new rows, whose optimizer is their own"
    )
    embedding_warmup_steps: int = Field(
        default=0,
        ge=0,
        le=1_000_000,
        description="steps at the beginning that train the new rows alone, before the adapter joins",
    )

    @model_validator(mode="after")
    def _one_way(self) -> TokenizerSection:
        said = [name for name in ("extend", "train", "replace") if getattr(self, name) is not None]
        if len(said) > 1:
            raise ValueError(f"tokenizer: say one of extend, train and replace, not {' and '.join(said)}")
        return self

    @property
    def changes_vocabulary(self) -> bool:
        """Whether it does; else it says how the rows are trained that an adapter's folder brings."""
        return bool(self.extend or self.train or self.replace)
