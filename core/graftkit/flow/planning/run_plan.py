"""What a run will do, and with what: as far as can be told without loading a weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from typing import TYPE_CHECKING, Any, NoReturn

from graftkit.corpus.dataset import Dataset
from graftkit.corpus.encode import Encoder
from graftkit.corpus.split import Split
from graftkit.flow.folders.adapter_folder import AdapterFolder
from graftkit.flow.planning.plan_teacher import Teacher
from graftkit.flow.planning.unsettled import settled_recipe
from graftkit.flow.planning.vocabulary import VocabularyRequest
from graftkit.flow.records.estimate import CorpusEstimate, estimate_corpus
from graftkit.flow.records.handed_records import KeptForAPlan
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.recipe.bind import BoundRecipe
from graftkit.report.run_manifest import HeadFacts, SettledKey
from graftkit.training.order import DatasetShare

if TYPE_CHECKING:
    from graftkit.flow.memory.fit_memory import MemoryLimits
    from graftkit.flow.memory.forecast_memory import MemoryRequest

__all__ = ["RunPlan", "WholeModules", "chats", "seen_an_epoch"]


@dataclass(frozen=True, slots=True)
class WholeModules:
    """Parameters that are trained as wholes beside an adapter: PEFT's `modules_to_save`.

    Attributes:
        shapes: The shape of each, by its name in the model.
        tied: Whether embedding and output layer stay one matrix where both are named and the base model ties them.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tied: bool = False


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What a run will do, and with what: as far as can be told without loading a weight.

    Attributes:
        bound: The recipe with every name resolved.
        source: The model source that opens the base model.
        files: The opened base model.
        backend: The backend of the base model's tokenizer.
        tokenizer: The base model's tokenizer, with the recipe's chat template where it gives one.
        vocabulary: What the recipe makes of the vocabulary, or None where it stays the base model's.
        today: The day that chat templates write where they ask for the date.
        encoder: Turns records into tokens of the tokenizer that is known so far: the base model's, or the one that
            replaces it.
        targets: The layers that are adapted, in the model's order: as the file's names say, until torch is loaded;
            see `graftkit.flow.planning.targets`.
        forecast: What they will take, as the file's names and shapes say, by `graftkit.flow.planning.targets.forecast`.
        samples: The records to learn from and the holdout ones.
        datasets: The files that they are in, and as what each is read.
        shares: How many training records each entry of `data.train` has, and how often they are seen.
        notices: What the user should know.
        expert_targets: Those of the targets that are stacks of experts, once torch is loaded.
        unties: Whether the base model ties output layer and embedding and one of them is a target, or the adapter that
            training goes on with has other rows of one than of the other; once torch is loaded.
        whole: The parameters that are trained as wholes beside the adapter, and whether embedding and output layer stay
            tied among them; those of a new adapter once torch is loaded.
        chosen: The keys of the recipe's `training` that it leaves out, with what was chosen for them.
        settled: The keys of the recipe that said `auto`, "section.key", with what they came to so far.
        corpus: What a sample of the records says of all of them; None where nothing asked for it.
        checked: What `graftkit.flow.preflight.check_as_run` found: the `device`, whether sequences are `packed`, and
            how many `new_rows` the embedding gets; None where it did not check.
        origin: The adapter that training goes on with; None where it begins with a new one.
        head: What the base model's files are given besides, which `files.config` says; None for a language model.
        teacher: The model that it learns from; None where the objective has none.
        ask_memory: Makes of this recipe, or of another one for the same records, what `forecast_memory` is to be asked;
            None where `check_as_run` has not looked, or no record can be encoded. No key of it may say `auto` any more.
        settle_memory: Finds out what keys come to that do, within so much memory, or what is free here; None likewise.
        handed: The files of records that a program has handed in, which are kept as long as the plan is.
    """

    bound: BoundRecipe
    source: RegisteredProvider
    files: BaseModelFiles
    backend: RegisteredProvider
    tokenizer: Tokenizer
    vocabulary: VocabularyRequest | None
    today: date
    encoder: Encoder
    targets: list[str]
    samples: Split
    datasets: Sequence[Dataset]
    shares: Sequence[DatasetShare]
    notices: list[str]
    forecast: Mapping[str, int | None]
    expert_targets: Sequence[str] = ()
    unties: bool = False
    whole: WholeModules = field(default_factory=WholeModules)
    chosen: Mapping[str, Any] = field(default_factory=dict)
    settled: Mapping[str, SettledKey] = field(default_factory=dict)
    corpus: CorpusEstimate | None = None
    checked: Mapping[str, str | bool | int] | None = None
    origin: AdapterFolder | None = None
    head: HeadFacts | None = None
    teacher: Teacher | None = None
    ask_memory: Callable[[BoundRecipe], MemoryRequest] | None = None
    settle_memory: Callable[[MemoryLimits | None], Mapping[str, SettledKey]] | None = None
    handed: KeptForAPlan | None = None

    @property
    def seen_an_epoch(self) -> float:
        """How often an epoch sees a training record, in the mean of all."""
        return seen_an_epoch(self.shares)

    def estimate(self) -> CorpusEstimate:
        """Returns what a sample of the records says of all of them: `corpus`, or what is encoded for it now."""
        return self.corpus or estimate_corpus(self.encoder, self.samples.train, self.seen_an_epoch)

    @property
    def chats(self) -> bool:
        """Whether training records are laid out by a chat template."""
        return chats(self.bound, self.samples)

    @property
    def mixed(self) -> bool:
        """Whether an epoch is anything but every training record once."""
        return any(share.weight != 1 for share in self.shares)

    def to_json(self) -> dict[str, Any]:
        """Returns what it amounts to, as `toolkit plan --quick --json` prints it; under each key `text` is in words."""
        from graftkit.flow.planning.describe_plan import describe

        return describe(self)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a plan holds open files and plugins, which no other process has: pickle what to_json() returns"
        )

    def with_settled(self, found: Mapping[str, SettledKey]) -> RunPlan:
        """Returns the plan with keys that said `auto` at the values that they came to."""
        return replace(self, bound=settled_recipe(self.bound, found), settled={**self.settled, **found})

    def revisions(self) -> dict[str, str]:
        """Returns the commit of each revision of a hub's data set that is read: "hub:owner/name@revision" -> commit."""
        origins = [dataset.origin for dataset in self.datasets if dataset.origin]
        return {f"{origin.data_set}@{origin.revision}": origin.commit for origin in origins}

    def data_sets(self) -> list[dict[str, Any]]:
        """Returns each entry of `data.train`, and how many of its records an epoch sees on average, as JSON."""
        return [
            {
                "path": entry.path,
                "weight": entry.weight,
                "records": share.records,
                "seen_an_epoch": float(share.weight * share.records),
            }
            for entry, share in zip(self.bound.recipe.data.train, self.shares, strict=True)
        ]

    def holdout_by(self) -> dict[str, Any] | None:
        """Returns the column by which records are held out together, and how many values each side has, as JSON."""
        grouped, column = self.samples.grouped, self.bound.recipe.data.holdout_by
        return {"column": column, "train": grouped.train, "holdout": grouped.holdout} if grouped else None


def chats(bound: BoundRecipe, samples: Split) -> bool:
    """Whether training records are laid out by a chat template."""
    return bound.objective_config.lays_out and "chat" in samples.train.counts()


def seen_an_epoch(shares: Sequence[DatasetShare]) -> float:
    """Returns how often an epoch sees a training record, in the mean of all."""
    return float(sum(share.weight * share.records for share in shares) / sum(share.records for share in shares))
