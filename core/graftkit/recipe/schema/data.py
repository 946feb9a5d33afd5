"""The records."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import date as Day
from math import isfinite
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from graftkit.interfaces.chat_options import RESERVED_ARGUMENTS
from graftkit.interfaces.config import MOST_COUNTED, StrictModel
from graftkit.recipe.schema.providers import ProviderSection
from graftkit.recipe.schema.short_forms import name_alone, path_alone

__all__ = [
    "ChatTemplateSection",
    "DataSection",
    "DatasetSection",
]

_SHARE, _FILES = "(share)", "(files)"
"""What pydantic calls the two forms of `data.holdout` in the places of its errors."""


def _files(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | dict | DatasetSection) for item in items):
        raise ValueError("files of records: a path, a mapping with a path, or a list of either")
    return [path_alone(item) for item in items]


def _share_or_list(value: Any) -> str:
    return _SHARE if isinstance(value, float) else _FILES


def _share_or_files(value: Any) -> Any:
    if isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 0.5:
        return float(value)
    if not isinstance(value, str | list | dict) or not value:
        raise ValueError("data.holdout: a share from 0 to 0.5, or a file")
    return _files(value)


def _day(value: Any) -> Any:
    if isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\d", value, re.ASCII):
        with suppress(ValueError):  # the 31st of February
            return Day.fromisoformat(value)
    if value is not None and type(value) is not Day:
        raise ValueError("data.date: a day, such as 2026-01-31")
    return value


def _template_arguments(value: Any) -> Any:
    if not isinstance(value, dict):
        raise ValueError("data.template_arguments: a mapping of names to values, such as {enable_thinking: false}")
    reserved = sorted(RESERVED_ARGUMENTS & value.keys())
    if reserved:
        raise ValueError(f"data.template_arguments: {', '.join(reserved)} is what every template is given already")
    odd = next((name for name in value if not isinstance(name, str) or not name.isidentifier()), None)
    if odd is not None:
        raise ValueError(f"data.template_arguments: {odd!r} can't be the name of a template's variable")
    odd = next((name for name, part in value.items() if not _is_json(part)), None)
    if odd is not None:
        raise ValueError(f"data.template_arguments: the value of {odd} is none of JSON: {value[odd]!r:.60}")
    return value


def _is_json(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isfinite(value) if isinstance(value, float) else isinstance(value, str | bool | int | None)


class DatasetSection(StrictModel):
    """Files of records: a path, or a mapping with what can't be told by looking at them."""

    path: str = Field(
        min_length=1,
        description="a file, a folder of files, or a pattern such as data/*.parquet; .jsonl, .json, .csv, .tsv, "
        ".parquet, .arrow, .txt or .md, also compressed; or hub:owner/name, a data set of the hub",
    )
    format: Annotated[ProviderSection, BeforeValidator(name_alone)] | None = Field(
        default=None, description="what the records mean: a format; the one that fits them when left out"
    )
    reader: Annotated[ProviderSection, BeforeValidator(name_alone)] | None = Field(
        default=None, description="what reads the files: a reader; the one that knows their suffix when left out"
    )
    columns: dict[str, str] = Field(
        default={}, description="the format's name of a column: the files' name, where they differ"
    )
    unused: Literal["report"] | list[str] = Field(
        default="report", description="columns that are not read; any other is refused then. report: they are told"
    )
    empty: Literal["refuse", "skip"] = Field(
        default="refuse",
        description="what happens to a record with nothing to learn, such as an empty answer: it is refused, or left "
        "out, which is counted and told",
    )
    weight: float = Field(
        default=1.0,
        ge=0.001,
        le=1000,
        description="how often each record is seen in an epoch: 2 for twice, 0.5 for a half of them, the other half in "
        "the next epoch",
    )
    first: int | None = Field(
        default=None, ge=1, le=MOST_COUNTED, description="only that many records are read, from the beginning on"
    )
    revision: str | None = Field(
        default=None, min_length=1, description="a hub data set's branch, tag or commit; its main branch when left out"
    )
    split: str | None = Field(
        default=None,
        min_length=1,
        description="a hub data set's split, by the names of its files; that of training when left out",
    )

    @model_validator(mode="after")
    def _each_once(self) -> DatasetSection:
        theirs = list(self.columns.values())
        if len({*theirs}) < len(theirs):
            raise ValueError("columns: two of the format's columns are the same column of the file")
        for key in ("revision", "split"):
            if getattr(self, key) is not None and not self.path.startswith(("hub:", "hf://")):
                raise ValueError(f"{key}: only a data set of the hub has one, such as hub:owner/name")
        return self


class ChatTemplateSection(StrictModel):
    """The chat template: a file's path, or the name of one of the tokenizer's own."""

    path: str | None = Field(default=None, min_length=1, description="a Jinja file")
    name: str | None = Field(
        default=None, min_length=1, description="one of several that the tokenizer has, such as rag or tool_use"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> ChatTemplateSection:
        if (self.path is None) == (self.name is None):
            raise ValueError("data.chat_template: say either path or name")
        return self


class DataSection(StrictModel):
    """The records to learn from and the records to judge by."""

    train: Annotated[list[DatasetSection], BeforeValidator(_files)] = Field(
        min_length=1, description="files of records: conversations, prompts and completions, or texts"
    )
    holdout: Annotated[
        Annotated[float, Field(ge=0, le=0.5), Tag(_SHARE)] | Annotated[list[DatasetSection], Tag(_FILES)],
        Discriminator(_share_or_list),
        BeforeValidator(_share_or_files),
    ] = Field(default=0.05, description="the share of records that training never sees, or files of such records")
    holdout_by: str | None = Field(
        default=None,
        min_length=1,
        description="a column, such as customer_id: records with the same value of it are all trained on, or all held "
        "out",
    )
    max_length: int | None = Field(
        default=None,
        ge=8,
        le=MOST_COUNTED,
        description="tokens of an example at most; 1024 or tokens_per_step when left out",
    )
    chat_template: Annotated[ChatTemplateSection, BeforeValidator(path_alone)] | None = Field(
        default=None,
        description="a Jinja file that lays out conversations, instead of the tokenizer's own; or {name: NAME}, where "
        "the tokenizer has several",
    )
    template_arguments: Annotated[dict[str, Any], BeforeValidator(_template_arguments)] = Field(
        default={}, description="what the chat template is given besides, by name, such as {enable_thinking: false}"
    )
    system: Literal["own", "first_user"] = Field(
        default="own",
        description="where a system message stands: in a turn of its own, or, for templates that take none, before the "
        "first user message's text, a blank line between",
    )
    turns: Literal["all", "each"] = Field(
        default="all",
        description="all: a conversation is one example. each: every answer is one, laid out with the conversation up "
        "to it as in use, for templates that leave out the reasoning of earlier turns",
    )
    end_of_turn: str | None = Field(
        default=None,
        min_length=1,
        description="the text, with a special token at its end, that ends an assistant's turn; what the template "
        "writes after the last turn when left out",
    )
    overflow: Literal["drop_turns", "drop", "truncate", "error"] = Field(
        default="drop_turns",
        description="what becomes of a conversation or completion longer than max_length: it ends with the last answer "
        "that fits as a whole, is left out, is cut off in the middle, or is an error",
    )
    dropped: Literal["refuse", "report"] = Field(
        default="refuse",
        description="what happens where a chat template leaves out a part of a conversation, such as earlier "
        "reasoning: the record is refused, or learnt without it, which is counted and told",
    )
    special_tokens: Literal["plain", "parse"] = Field(
        default="plain",
        description="what control tokens are that texts, prompts and completions spell: plain characters, or, in texts "
        "that another program has laid out, the tokens",
    )
    date: Annotated[Day | None, BeforeValidator(_day)] = Field(
        default=None, description="the day that a chat template writes; the day on which the run starts when left out"
    )

    @model_validator(mode="after")
    def _holdout_once(self) -> DataSection:
        if isinstance(self.holdout, list) and any(entry.weight != 1 for entry in self.holdout):
            raise ValueError("data.holdout: a weight says how often records are trained on; leave it out here")
        if self.holdout_by is not None and self.holdout == 0:
            raise ValueError(
                "data.holdout_by says which records are held out together, but data.holdout is 0: raise it"
            )
        return self
