"""Fields that recipes may give to formats."""

from __future__ import annotations

from typing import Literal, Self

from graftkit import ProviderConfig
from pydantic import Field, model_validator

__all__ = ["LabelConfig", "PreferenceConfig", "RolesConfig", "ScoreConfig", "TagConfig", "TranslationConfig"]

RoleName = Literal["system", "user", "assistant", "tool"]


class RolesConfig(ProviderConfig):
    """Fields of the formats whose records are messages."""

    roles: dict[str, RoleName] = Field(
        default={}, description="role in the file: system, user, assistant or tool; besides the names that are known"
    )
    ignore: list[str] = Field(
        default=[], description="keys of messages that are not read, such as timestamp; any other is refused"
    )


class PreferenceConfig(RolesConfig):
    """Fields of the format `preference`."""

    learn: Literal["chosen"] | None = Field(
        default=None, description="chosen: the chosen answer alone is learnt, as fine-tuning learns; both when left out"
    )


class LabelConfig(ProviderConfig):
    """Fields of the formats `label` and `labels`."""

    names: list[str] = Field(default=[], description="the words for labels that are numbers, from 0 on")


class TagConfig(ProviderConfig):
    """Fields of the format `tags`."""

    names: list[str] = Field(default=[], description="the words for tags that are numbers, from 0 on")


class ScoreConfig(ProviderConfig):
    """Fields of the format `score`."""

    as_text: bool = Field(default=False, description="whether numbers are written as text, as CSV and TSV have them")


class TranslationConfig(ProviderConfig):
    """Fields of the format `translation`."""

    source: str = Field(default="", description="the language that is translated, as the records name it, such as en")
    target: str = Field(default="", description="the one that it is translated into, such as fr")

    @model_validator(mode="after")
    def _are_two(self) -> Self:
        if bool(self.source) != bool(self.target) or (self.source and self.source == self.target):
            raise ValueError("source and target are two languages, as the records name them")
        return self
