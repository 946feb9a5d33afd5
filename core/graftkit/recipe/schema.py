"""What a recipe may say. Each provider's own fields are judged by its own config model, in `bind`."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from datetime import date as Day
from math import isfinite
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from graftkit.interfaces.chat_options import RESERVED_ARGUMENTS
from graftkit.interfaces.config import MOST_COUNTED, StrictModel
from graftkit.interfaces.vocabulary_limits import MOST_IDS, MOST_PIECES

__all__ = [
    "ALTERNATIVES",
    "AdapterSection",
    "ChatTemplateSection",
    "DataSection",
    "DatasetSection",
    "EvaluationSection",
    "ExportSection",
    "ExtendSection",
    "MemorySection",
    "MetricSection",
    "ModelSection",
    "PluginsSection",
    "ProviderSection",
    "Recipe",
    "ReplaceSection",
    "TokenizerSection",
    "TrainVocabularySection",
    "TrainingSection",
    "with_defaults",
]


ALTERNATIVES = {"training": frozenset({"epochs", "steps"}), "tokenizer": frozenset({"extend", "train", "replace"})}
"""Keys of which a section says one at most, by the section: whoever says one is silent on none of them."""

_SHARE, _FILES = "(share)", "(files)"
"""What pydantic calls the two forms of `data.holdout` in the places of its errors."""


def _name_alone(value: Any) -> Any:
    return {"use": value} if isinstance(value, str) else value


def _path_alone(value: Any) -> Any:
    return {"path": value} if isinstance(value, str) else value


def _one_alone(value: Any) -> Any:
    return [value] if isinstance(value, str | dict) else value


def _files(value: Any) -> Any:
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | dict | DatasetSection) for item in items):
        raise ValueError("files of records: a path, a mapping with a path, or a list of either")
    return [_path_alone(item) for item in items]


def _share_or_list(value: Any) -> str:
    return _SHARE if isinstance(value, float) else _FILES


def _share_or_files(value: Any) -> Any:
    if isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= 0.5:
        return float(value)
    if not isinstance(value, str | list | dict) or not value:
        raise ValueError("data.holdout: a share from 0 to 0.5, or a file")
    return _files(value)


_DEVICE_NAMES = re.compile(r"con|prn|aux|nul|com\d|lpt\d", re.IGNORECASE)
"""What files and folders can't be called on Windows, whatever follows after a dot."""

_DEVICES = r"auto|cpu|mps|(cuda|xpu)(:\d{1,3})?"


def _whole_if_it_is(value: float) -> float:
    """Returns 3.0 as 3, as people write it, in manifests and messages, too."""
    return int(value) if value == int(value) else value


def _device(value: Any) -> Any:
    if not isinstance(value, str) or not re.fullmatch(_DEVICES, value, re.ASCII):
        raise ValueError("training.device: auto, cpu, cuda, cuda:N, mps, xpu or xpu:N")
    return value


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
    targets: Annotated[list[str], BeforeValidator(_one_alone)] = Field(
        default=["all-linear"],
        min_length=1,
        description="layers to adapt: all-linear, names (q_proj), paths or patterns (*.self_attn.*); a mixture's "
        "experts, the output layer and the embedding where they are named (experts, lm_head, embed_tokens)",
    )
    modules_to_save: Annotated[list[str], BeforeValidator(_one_alone)] = Field(
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


class ModelSection(StrictModel):
    """The base model, and which source opens it: asked of the sources when left out."""

    path: str = Field(min_length=1, description="a folder, a .gguf file, package:NAME/FILE or a hub id")
    use: str | None = Field(default=None, description="the model source's name")


class ExtendSection(StrictModel):
    """Tokens to add to the base model's tokenizer."""

    tokens: int = Field(default=2000, ge=0, le=MOST_IDS, description="how many tokens to learn, at most")
    corpus: Annotated[list[str], BeforeValidator(_one_alone)] = Field(
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
    corpus: Annotated[list[str], BeforeValidator(_one_alone)] = Field(
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
    replace: Annotated[ReplaceSection, BeforeValidator(_path_alone)] | None = Field(
        default=None, description="take another one"
    )
    embedding_init: Annotated[ProviderSection, BeforeValidator(_name_alone)] = Field(
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


class DatasetSection(StrictModel):
    """Files of records: a path, or a mapping with what can't be told by looking at them."""

    path: str = Field(
        min_length=1,
        description="a file, a folder of files, or a pattern such as data/*.parquet; .jsonl, .json, .csv, .tsv, "
        ".parquet, .arrow, .txt or .md, also compressed; or hub:owner/name, a data set of the hub",
    )
    format: Annotated[ProviderSection, BeforeValidator(_name_alone)] | None = Field(
        default=None, description="what the records mean: a format; the one that fits them when left out"
    )
    reader: Annotated[ProviderSection, BeforeValidator(_name_alone)] | None = Field(
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
    chat_template: Annotated[ChatTemplateSection, BeforeValidator(_path_alone)] | None = Field(
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


_BETA2_OF_LION = 0.99
"""As its paper has it."""


def _chosen(schema: dict[str, Any]) -> None:
    """Takes the default out of a key's JSON Schema: when left out, the plan chooses the value."""
    del schema["default"]


class TrainingSection(StrictModel):
    """How the adapter is trained.

    The plan of a run chooses what is left out of `tokens_per_step`, `learning_rate`, and `epochs` and `steps`; see
    `graftkit.flow.records.estimate`. The defaults here are of a section that no run uses.
    """

    epochs: Annotated[float, Field(gt=0, le=10_000), AfterValidator(_whole_if_it_is)] | None = Field(
        default=None,
        description="how often every record is seen, such as 2 or 0.5; 3 when left out, or as often as 30 steps take",
    )
    steps: int | None = Field(
        default=None, ge=1, le=1_000_000, description="how many optimizer steps, instead of epochs"
    )
    tokens_per_step: int = Field(
        default=4096,
        ge=8,
        le=MOST_COUNTED,
        json_schema_extra=_chosen,
        description="tokens of one optimizer step at most; those of about 8 examples when left out",
    )
    microbatch_tokens: Annotated[int, Field(ge=8, le=MOST_COUNTED)] | Literal["auto"] = Field(
        default=1024,
        description="tokens of one forward pass at most; less takes less memory. auto: from 1024 to 8192, and no less "
        "than the longest example, as many as the memory has room for that is free when the run starts",
    )
    learning_rate: float = Field(
        default=2e-4,
        ge=1e-12,
        lt=1,
        json_schema_extra=_chosen,
        description="the highest rate; when left out 1e-3 for models up to 0.2 billion parameters, 5e-4 up to 2 "
        "billion, 2e-4 for larger ones; a tenth of that for adapter: full, and where preferences or rewards are "
        "learnt, and a fifth with lion",
    )
    schedule: Literal["cosine", "linear", "constant", "wsd", "cosine_with_restarts", "polynomial", "inverse_sqrt"] = (
        Field(
            default="cosine",
            description="how the rate falls after the warm-up. wsd: it stays, and falls at the end; "
            "cosine_with_restarts: along several cosines, each from the highest rate; polynomial: by a power of the "
            "steps that are left; inverse_sqrt: by the square root of the steps since the warm-up",
        )
    )
    decay: float = Field(
        default=0.1, gt=0, le=1, description="the share of steps, the last ones, in which the rate falls with wsd"
    )
    decay_type: Literal["linear", "cosine", "1-sqrt"] = Field(
        default="linear", description="along which curve the rate falls with wsd"
    )
    cycles: int = Field(
        default=2, ge=1, le=1_000_000, description="how many cosines follow one another with cosine_with_restarts"
    )
    power: float = Field(
        default=1.0, gt=0, le=100, description="the power with polynomial: 1 is a straight line, 2 falls faster first"
    )
    timescale: int | None = Field(
        default=None,
        ge=1,
        le=MOST_COUNTED,
        description="with inverse_sqrt after how many steps the rate is 0.71 of the highest, after three times as many "
        "a half; the warm-up's steps when left out, or 10000 without one",
    )
    min_lr_ratio: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="what the rate falls to, as a share of the highest rate; 0.1 for a tenth of it",
    )
    warmup: float = Field(default=0.05, ge=0, le=1, description="the share of steps in which the rate rises")
    warmup_steps: int | None = Field(
        default=None, ge=0, le=1_000_000, description="in how many steps the rate rises, instead of warmup's share"
    )
    optimizer: Literal["adamw", "adamw-8bit", "sgd", "lion", "adafactor", "muon"] = Field(
        default="adamw",
        description="adamw; adamw-8bit, whose moments take a quarter of the memory; sgd, with a momentum of 0.9; lion, "
        "which keeps one moment and takes a lower rate; adafactor, which keeps a number a row and a column; muon for "
        "the matrices of hidden layers, and adamw for all else",
    )
    beta1: float = Field(
        default=0.9, ge=0, lt=1, description="the decay of AdamW's mean of the gradient, or of that which lion steps by"
    )
    beta2: float = Field(
        default=0.999,
        ge=0,
        lt=1,
        description="the decay of AdamW's mean of its square; with lion that of the mean it keeps, 0.99 when left out",
    )
    epsilon: float = Field(
        default=1e-8, ge=1e-30, le=1, description="what AdamW adds to the root of the second moment before it divides"
    )
    weight_decay: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="the optimizer's weight decay, decoupled but for sgd's, of all that is trained, biases too, but "
        "new embedding rows",
    )
    max_grad_norm: float = Field(default=1.0, ge=1e-12, le=1e12, description="the gradient is clipped to this norm")
    neftune_noise_alpha: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="noise on the input embeddings in training (NEFTune): uniform, up to this over the root of a "
        "sequence's tokens times the embedding's width; its paper takes 5 to 15",
    )
    divergence_factor: float | None = Field(
        default=2.0,
        gt=1,
        le=1e12,
        description="the run stops where the mean loss of the last divergence_window steps is more than this times the "
        "lowest such mean so far, and higher than the first; null: it never does",
    )
    divergence_window: int = Field(default=10, ge=1, le=1_000_000, description="over how many steps that mean is taken")
    seed: int = Field(default=0, ge=0, lt=2**63, description="one seed, one result")
    checkpoint_every: int | None = Field(
        default=None,
        ge=1,
        le=MOST_COUNTED,
        description="steps between checkpoints; a run that is stopped leaves one in any case",
    )
    keep_checkpoints: int = Field(
        default=2,
        ge=1,
        le=MOST_COUNTED,
        description="how many checkpoints are kept, the newest ones, besides that of the best step",
    )
    device: Annotated[str, BeforeValidator(_device)] = Field(
        default="auto",
        json_schema_extra={"pattern": f"^({_DEVICES})$"},
        description="auto, cpu, cuda, cuda:N, mps, xpu or xpu:N",
    )
    dtype: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="the type of the products; what is trained is kept and updated in float32. auto: bfloat16 where "
        "the device multiplies it faster, which a CPU is timed for",
    )
    parallel: Literal["auto", "data", "shard", "hybrid"] = Field(
        default="auto",
        description="how several processes hold the frozen weights. data: each has all of them; shard: each keeps a "
        "part, and the rest of one block at a time; hybrid: so on each machine. auto: data where the weights fit the "
        "device, hybrid where they fit all devices of a machine together, else shard",
    )

    @model_validator(mode="before")
    @classmethod
    def _of_lion(cls, said: Any) -> Any:
        lion = isinstance(said, dict) and said.get("optimizer") == "lion"
        return {"beta2": _BETA2_OF_LION, **said} if lion else said

    @property
    def pass_tokens(self) -> int:
        """The tokens of one forward pass at most, once it is settled what `auto` is."""
        assert self.microbatch_tokens != "auto"
        return self.microbatch_tokens

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSection:
        if self.epochs is not None and self.steps is not None:
            raise ValueError("say either epochs or steps, not both")
        return self


class MemorySection(StrictModel):
    """What a training step keeps in memory."""

    checkpoint: Literal["none", "blocks", "auto"] = Field(
        default="none",
        description="activation checkpointing. blocks: of each repeated block only its inputs are kept, and it is "
        "computed again for its gradient: the same result, in up to a third more time. auto: where the largest pass "
        "does not fit otherwise into the memory that is free when the run starts",
    )
    offload: bool = Field(
        default=False,
        description="have the inputs of checkpointed blocks wait in the host's memory instead of the GPU's until their "
        "block is computed again: the same result, and each is copied there and back",
    )

    @model_validator(mode="after")
    def _of_blocks(self) -> MemorySection:
        if self.offload and self.checkpoint == "none":
            raise ValueError("memory.offload: what waits are the inputs of checkpointed blocks; say checkpoint: blocks")
        return self


class EvaluationSection(StrictModel):
    """What is measured before and after training, besides the holdout loss; and while it goes on."""

    every: int | None = Field(
        default=None,
        ge=1,
        le=MOST_COUNTED,
        description="steps between evaluations of the holdout loss while the model is trained, and one after the last "
        "step; none when left out",
    )
    sample: Annotated[int, Field(ge=1, le=MOST_COUNTED)] | Literal["all"] = Field(
        default=256, description="how many holdout examples those evaluate at most, drawn by the seed; or all"
    )
    patience: int | None = Field(
        default=None,
        ge=1,
        le=MOST_COUNTED,
        description="training stops early after so many of those evaluations in a row without a lower loss",
    )
    min_delta: float = Field(
        default=0.0,
        ge=0,
        le=1000,
        description="patience begins anew where a loss is lower by more than this than where it last began",
    )
    exported: Literal["best", "last"] | None = Field(
        default=None,
        description="which step's weights are evaluated at the end and exported: best, that of the lowest of those "
        "losses, or last; best where patience is said, else last, when left out",
    )
    answers: int = Field(
        default=0,
        ge=0,
        le=MOST_COUNTED,
        description="holdout records to answer by greedy generation, before and after training",
    )
    metrics: Annotated[list[Annotated[MetricSection, BeforeValidator(_name_alone)]], BeforeValidator(_one_alone)] = (
        Field(
            default=[MetricSection(use="exact-match")],
            min_length=1,
            description="what those answers are compared with the expected ones by, each a metric; the first one says "
            "which are shown as right",
        )
    )
    max_new_tokens: int = Field(default=128, ge=1, le=1_000_000, description="tokens of a generated answer at most")
    batch_size: int = Field(default=64, ge=1, le=1_000_000, description="answers generated side by side")

    @property
    def exports_best(self) -> bool:
        """Whether the step with the lowest holdout loss is exported, not the last one."""
        return self.exported == "best" or (self.exported is None and self.patience is not None)

    @field_validator("metrics")
    @classmethod
    def _each_name_once(cls, metrics: list[MetricSection]) -> list[MetricSection]:
        labels = [metric.label for metric in metrics]
        repeated = next((label for label in labels if labels.count(label) > 1), None)
        if repeated:
            raise ValueError(f"evaluation.metrics: two are called '{repeated}': give one a name of its own")
        return metrics

    @model_validator(mode="after")
    def _evaluated(self) -> EvaluationSection:
        wanting = next((key for key in ("patience", "exported") if getattr(self, key) not in (None, "last")), None)
        if self.every is None and wanting:
            raise ValueError(f"evaluation.{wanting} goes by evaluations while the model is trained: say every, too")
        return self


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

    model: Annotated[ModelSection, BeforeValidator(_path_alone)] = Field(
        description="a folder, a .gguf file, package:NAME/FILE, a hub id, or {use: SOURCE, path: REFERENCE}"
    )
    tokenizer: TokenizerSection | None = Field(
        default=None, description="another vocabulary than the base model's: extend, train or replace"
    )
    data: DataSection = Field(description="the records")
    quantizer: Annotated[ProviderSection, BeforeValidator(_name_alone)] | None = Field(
        default=None, description="how frozen weights are stored; none when left out, nf4 under qlora"
    )
    adapter: Annotated[AdapterSection, BeforeValidator(_name_alone)] = Field(
        default=AdapterSection(use="lora"), description="what is trained"
    )
    objective: Annotated[ProviderSection, BeforeValidator(_name_alone)] = Field(
        default=ProviderSection(use="sft"),
        description="what training minimizes: sft; dpo and others for preferences, grpo, classification and others",
    )
    training: TrainingSection = Field(default=TrainingSection(), description="how it is trained")
    memory: MemorySection = Field(default=MemorySection(), description="what a training step keeps in memory")
    evaluation: EvaluationSection = Field(default=EvaluationSection(), description="what is measured")
    export: Annotated[list[Annotated[ExportSection, BeforeValidator(_name_alone)]], BeforeValidator(_one_alone)] = (
        Field(default=[], description="formats to write and prove")
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
