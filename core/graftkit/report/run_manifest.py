"""What a run says of itself: `manifest.json`, read and written here alone."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from graftkit.errors import FolderError
from graftkit.host.lifecycle import RunStatus
from graftkit.interfaces.architecture import Head, PooledBy
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.exporter import MergeBase
from graftkit.interfaces.regular_file import read_regular
from graftkit.store.files import write_json

__all__ = [
    "FORMAT",
    "MANIFEST",
    "AdapterSource",
    "BaseFacts",
    "ChatFacts",
    "DataFacts",
    "ExportFacts",
    "ExportedStep",
    "Facts",
    "FileFacts",
    "HeadFacts",
    "Measurement",
    "MemoryFacts",
    "MemoryForecast",
    "MemoryMeasured",
    "MergeFacts",
    "MergeScore",
    "ParameterFacts",
    "RunManifest",
    "SequenceFacts",
    "SettledKey",
    "StageFacts",
    "StageMemory",
    "StepFailure",
    "TokenizerFacts",
    "required",
]

MANIFEST = "manifest.json"

FORMAT = 1
"""The version of a manifest's form. Keys may be added within it; none is renamed or means something else."""

_OF_A_RUN = ("tokens", ".tokens.partial", "metrics.jsonl", ".graftkit.lock")
"""What lies beside the manifest of a run, and hardly anywhere else."""

_NOT_EMPTY = ("replacing", "kept")
"""Parts that are left out where they hold nothing."""

_OF_ANOTHER_KIND = (errno.EINVAL, errno.EFBIG, errno.EISDIR)
"""Why what is called as a manifest is called can't be one: it is no regular file, or too large."""

_PUT_BACK = "Put the file back as it was, or use another folder with --out."

Value = TypeVar("Value")


class Facts(BaseModel):
    """A part of a manifest: frozen, no type converted, and keys that are not declared are kept as they are."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", protected_namespaces=())


class FileFacts(Facts):
    """A file's size in bytes, and its sha256 in hex."""

    bytes: int
    sha256: str

    @classmethod
    def of(cls, text: str) -> FileFacts:
        """Returns those of a file that holds a text, UTF-8."""
        data = text.encode()
        return cls(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


class BaseFacts(Facts):
    """The base model.

    Attributes:
        reference: What opens it.
        files: Each file's sha256, in hex, by its name.
    """

    reference: str
    files: dict[str, str] = {}


class HeadFacts(Facts):
    """The head that was put on the base model.

    Attributes:
        kind: What it scores.
        labels: What its scores are of, in their order; empty for the one score of a reward model. A single one is the
            name of a number, unless a text may have `several`.
        pad: The id of the tokenizer's padding token.
        several: Whether a text may have several of the labels, each of which is judged by itself.
        pairs: Whether it was trained on pairs of texts.
        pooled_by: What a sequence's vector is made of, of a model that gives vectors.
        prompts: What was put before texts, by what they are, `query` or `document`, likewise.
    """

    kind: Head
    labels: list[str] = []
    pad: int | None = None
    several: bool = False
    pairs: bool = False
    pooled_by: PooledBy | None = None
    prompts: dict[str, str] | None = None


class AdapterSource(Facts):
    """The folder of an adapter in PEFT's format that something was made of.

    Attributes:
        path: The folder.
        files: The sha256 of its files, in hex, by name.
    """

    path: str
    files: dict[str, str] = {}


class TokenizerFacts(Facts):
    """The tokenizer that examples are encoded with.

    Attributes:
        fingerprint: What its ids depend on, as hex.
        chat_template: The sha256 of the chat template in use, in hex, or None.
        vocab_size: How many ids it has.
        change: What became of the base model's vocabulary, or None where it stayed.
        new_rows: Rows of the embedding that are trained: those that the base model lacks, or an adapter's folder has.
        corpus_tokens: Tokens of the corpus that an extension learnt from: `base`, `extended`, and the share `saved`.
    """

    fingerprint: str
    chat_template: str | None = None
    vocab_size: int = 0
    change: str | None = None
    new_rows: int = 0
    corpus_tokens: dict[str, float] | None = None


class ChatFacts(Facts):
    """How conversations are laid out, where that is not as usual.

    Attributes:
        template_arguments: What the chat template is given besides the conversation.
        template_arguments_sha256: Of these, in hex.
        system: Where a system message stands; see `graftkit.interfaces.chat_options.ChatOptions`.
        turns: Whether a conversation is one example, or each answer is.
        end_of_turn: The text that ends an assistant's turn, where the recipe says it.
        template: The name of the tokenizer's template, where the recipe says it.
    """

    template_arguments: dict[str, Any] = {}
    template_arguments_sha256: str | None = None
    system: Literal["own", "first_user"] = "own"
    turns: Literal["all", "each"] = "all"
    end_of_turn: str | None = None
    template: str | None = None


class DataFacts(Facts):
    """The examples.

    Attributes:
        date: The day that a chat template writes, ISO 8601.
        revisions: The commit of each revision of a hub's data set that is read, by "hub:owner/name@revision".
        fingerprint: What the training and holdout records are, as hex, by "train" and "holdout"; by "layout", all that
            their tokens depend on besides.
        system: The system message that all conversations share, or None.
        tools: Descriptions of the functions that the assistant may call in all conversations; empty where they differ.
        example_prompt: A record's prompt to try the model with, a holdout one where there is one; or None.
        chat: How conversations are laid out, or None where that is as usual.
        prompts: How the model is asked, as it was trained: "chat" for the chat template, "plain" for the text alone.
    """

    date: str
    revisions: dict[str, str] = {}
    fingerprint: dict[str, str] = {}
    system: str | None = None
    tools: list[dict[str, Any]] = []
    example_prompt: str | None = None
    chat: ChatFacts | None = None
    prompts: Literal["chat", "plain"] = "chat"


class SequenceFacts(Facts):
    """Whether a pass holds several sequences, and why not."""

    packed: bool
    reason: str


class ParameterFacts(Facts):
    """How many parameters the model has, and how many and what share of them are trained."""

    total: int
    trainable: int
    trainable_share: float


class Measurement(Facts):
    """What the holdout examples said of the model.

    Attributes:
        holdout_loss: Mean negative log-likelihood of a token in the loss, in nats, or what the objective minimizes.
        bits_per_byte: The same in bits, of a byte of the text in the loss; None where it minimizes something else.
        scores: The mean score of the answers by each metric; empty where no answer was asked for.
        answers: How many answers were compared.
        metrics: What else the objective tells, by name.
    """

    holdout_loss: float
    bits_per_byte: float | None = None
    scores: dict[str, float] = {}
    answers: int = 0
    metrics: dict[str, float] = {}


class StageFacts(Facts):
    """A stage that is over; what it found out stands beside its name and how many seconds it took."""

    name: str
    seconds: float


class ExportedStep(Facts):
    """The step whose weights are evaluated after training and exported.

    Attributes:
        step: Its number.
        taken: How many steps were taken.
        planned: How many the recipe makes.
        reason: Why it is this one.
        stopped_early: Why fewer steps were taken than planned; empty where none fewer were.
    """

    step: int
    taken: int
    planned: int
    reason: str
    stopped_early: str = ""


class StepFailure(Facts):
    """A step that was not taken, since its loss had gone wrong.

    Attributes:
        step: The step's number.
        reason: What is wrong with its loss.
        good: The last step that nothing speaks against.
        records: Where each of its records stands: file and line.
        back_to: The last step from which the run that goes on may start, where it trains otherwise; else None.
    """

    step: int
    reason: str
    good: int
    records: list[str] = []
    back_to: int | None = None


class MergeScore(Facts):
    """What a model computes on the records that merges are measured on.

    Attributes:
        onto: What its adapter is merged onto, or "trained" for the model as it was trained.
        loss: Mean negative log-likelihood of a token in the loss, in nats.
        kl: Mean Kullback-Leibler divergence of the next token's distribution from the trained model's, in nats.
        top1: The share of tokens in the loss at which it finds the same token likeliest as the trained model.
        exact: The share of examples each of whose tokens in the loss it finds likeliest, which is what generating
            greedily gives; None where exact match is not evaluated.
    """

    onto: MergeBase | Literal["trained"]
    loss: float
    kl: float
    top1: float
    exact: float | None = None


class MergeFacts(Facts):
    """What the adapter of an export was merged onto.

    Attributes:
        onto: The base.
        asked: What the recipe asked for.
        reason: Why this one was chosen, where the recipe left that to be measured.
        measured_on: What the scores were measured on.
        scores: The trained model's, and those of each base that there is; empty where nothing was measured.
        left_out: Why there are no others, by base.
    """

    onto: MergeBase
    asked: MergeBase | Literal["auto"]
    reason: str = ""
    measured_on: str = ""
    scores: list[MergeScore] = []
    left_out: dict[str, str] = {}


class ComparedWeights(Facts):
    """How many weights of a quantized export were compared with those that were quantized."""

    compared: int


class CoverageFacts(Facts):
    """Up to how many tokens a proof's sequences have."""

    longest: int | None = None


class OnBaseFile(Facts):
    """How an adapter computes on the base model's own file."""

    file: str
    same_weights: bool
    max_abs_diff: float
    base_max_abs_diff: float
    tolerance: float


class RoundingFacts(Facts):
    """How a quantized export differs from what was trained."""

    divergence: float
    allowed: float
    top1_agreement: float | None = None
    loss_difference: float | None
    weights: ComparedWeights | None = None


class FromTrained(Facts):
    """How far a model is from the trained one whose adapter was merged onto another base.

    Attributes:
        largest: The most that a logit, or a number of a vector, is off by.
        mean: What it is off by in the mean.
        top1: At what share of positions the likeliest token, or label, is the same; None of vectors.
    """

    largest: float
    mean: float
    top1: float | None = None


class ProvedFacts(Facts):
    """What the proof of an export says that holds, as far as anything is told of it.

    Attributes:
        max_abs_diff: The most that a logit is off by.
        tolerance: What the export's format explains of that.
        loaded_with: The version of each library that loaded it, by name.
        covers: What was compared besides logits: token ids, chat template and so on.
        coverage: Up to how many tokens the sequences have that it was proved with.
        chosen_otherwise: How many choices of experts, nearly even ones, it makes otherwise than the trained model, and
            how many there are: it was compared with that one's experts. None where it was compared with its own.
        set_aside: Positions whose experts were chosen by rounding, and all positions; None where every one counts.
        rounding: What rounding its weights changed, where its format rounds them.
        base_stored_by: The quantizer whose weights it was proved on; None where the export holds its own.
        base_tokenizer: What transformers' tokenizer of the base model gives otherwise than the one that was trained
            with; empty for nothing.
        from_trained: How far one merged onto other weights than were trained on is from what was trained.
        on_base_file: What its adapter computes on the base model's own file, where its program reads that.
        mean_abs_diff: What a logit is off by in the mean.
        top1_agreement: At what share of positions the likeliest token, or label, is the same; 0 of vectors.
    """

    max_abs_diff: float
    tolerance: float
    loaded_with: dict[str, str]
    covers: list[str] = []
    coverage: CoverageFacts = CoverageFacts()
    chosen_otherwise: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    set_aside: Annotated[list[int], Field(min_length=2, max_length=2)] | None = None
    rounding: RoundingFacts | None = None
    base_stored_by: str | None = None
    base_tokenizer: str = ""
    from_trained: FromTrained | None = None
    on_base_file: OnBaseFile | None = None
    mean_abs_diff: float = 0.0
    top1_agreement: float = 0.0


class _Unproved(Facts):
    """What a proof says that does not hold, or is not there."""

    status: Literal["not yet", "not possible", "failed"]
    reason: str


def _checked_proof(proof: dict[str, Any]) -> dict[str, Any]:
    """Refuses what no proof says; what is kept of a proof is JSON as it was given."""
    try:
        (ProvedFacts if proof.get("status") == "proved" else _Unproved).model_validate(proof)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ValueError(f"of '{'.'.join(map(str, first['loc']))}': {first['msg'].lower()}") from None
    if proof.get("from_trained") and not isinstance(proof.get("merged_onto"), str):
        raise ValueError("it does not say 'merged_onto'")
    return proof


class ExportFacts(Facts):
    """An export: its folder, what proving it gave, and what a merged one was merged onto."""

    folder: str
    proof: Annotated[dict[str, Any], AfterValidator(_checked_proof)]
    merge: MergeFacts | None = None


class SettledKey(Facts):
    """What a key of the recipe that says `auto` came to on this machine.

    Attributes:
        value: The value.
        reason: Why.
    """

    value: int | str
    reason: str

    def describe(self, key: str) -> str:
        """Says it of a key."""
        value = f"{self.value:,}" if isinstance(self.value, int) else self.value
        return f"{key}: auto is {value}: {self.reason}"


class StageMemory(Facts):
    """The most that a stage holds at once, in bytes.

    Attributes:
        stage: The run's stage.
        host: Of the machine's memory, what files are mapped to left out.
        device: Of the device's, where the model computes on one of its own.
        parts: What the peak consists of, by part; see `graftkit.training.dry_run.Peak`. On the CPU `program` is among
            them: the interpreter and its libraries.
    """

    stage: str
    host: int
    device: int | None = None
    parts: dict[str, int] = {}


class MemoryForecast(Facts):
    """What a run will take of memory, as far as can be told before a weight is loaded.

    Attributes:
        device: The type of the device that it is for: "cpu", "cuda", ...
        pass_tokens: Tokens of the largest pass.
        pass_sequences: How many sequences those are.
        stages: The peak of each stage.
        unknown: Why there is no forecast; "" where there is one.
    """

    device: str
    pass_tokens: int = 0
    pass_sequences: int = 0
    stages: list[StageMemory] = []
    unknown: str = ""

    @property
    def host(self) -> StageMemory | None:
        """The stage that takes most of the machine's memory."""
        return max(self.stages, key=lambda stage: stage.host, default=None)

    @property
    def on_device(self) -> StageMemory | None:
        """The stage that takes most of the device's; None where the model computes on the CPU."""
        known = [stage for stage in self.stages if stage.device is not None]
        return max(known, key=lambda stage: stage.device or 0, default=None)


class MemoryMeasured(Facts):
    """What stages were measured to take at most, in bytes, by stage.

    Attributes:
        host: Of the machine's memory, the run's process and those that it started, what files are mapped to left out.
        device: Of the device's memory, what torch held; empty where the model computes on the CPU.
    """

    host: dict[str, int] = {}
    device: dict[str, int] = {}


class MemoryFacts(Facts):
    """A run's memory."""

    forecast: MemoryForecast | None = None
    measured: MemoryMeasured = MemoryMeasured()


class RunManifest(Facts):
    """What a run says of itself. A part is None, or empty, until the stage that finds it out is over.

    Attributes:
        graftkit: The version that wrote it.
        format: The version of the form, `FORMAT`.
        status: How the run stands.
        id: What no other run is called; one that is resumed keeps it.
        seconds: How long it has taken.
        progress: The stage, and the step of the training, that was reached; None when the run has finished.
        recipe: The recipe with every default and preset filled in.
        chosen: The keys of the recipe's `training` that were left out, with what was chosen for them by the records.
        settled: The keys of the recipe that said `auto`, as "section.key", and what they came to on this machine;
            `recipe` has the values.
        providers: What each name in the recipe resolved to, by kind.
        seed: What all random numbers are derived from.
        stages: The stages that are over, in their order.
        notices: What the user was told.
        data: The examples.
        environment: The versions of what a result may depend on.
        resumed: Where each run stopped that this one went on from.
        continued: What each finished run was that this one went on from: how many `steps` it took of those that
            were `planned`, and what was measured `after` them, if anything was.
        tokenizer: The tokenizer that examples are encoded with.
        model: The base model.
        head: The head that was put on it, or None where it is a language model.
        adapter_from: The adapter that training went on with, or None.
        teacher: The model that it learnt from, or None.
        sequences: How sequences are put together.
        forecast: What was known beforehand of what is trained and stored, by `graftkit.flow.planning.targets.forecast`.
        memory: What it was forecast and measured to take of memory.
        parameters: How many parameters there are.
        stop_tokens: The ids that end an answer.
        metrics: What was measured, by moment: "base", "before" and "after".
        exported: The step whose weights "after" and the exports are of.
        exports: The exports, by folder.
        error: What the run failed with.
        failure: The step whose loss had gone wrong, until a step after it has been taken.
        written: While it goes on, the paths of the files that were there when this was written.
        kept: While it goes on, what the files begin with that a run which goes on takes over as they are: how many
            bytes, and the sha256 of those. Once it is over, what it wrote of files that were edited since.
        artifacts: Every file's size and sha256 by its path in the run's folder, once the run is over.
        replacing: While a proof is recorded that was put off, what else a file may be, as `artifacts` says it: a kill
            leaves it (`graftkit.flow.exports.record_proof`).
    """

    graftkit: str
    format: int = FORMAT
    status: RunStatus
    id: str = ""
    seconds: float = 0.0
    progress: dict[str, Any] | None = None
    recipe: dict[str, Any] = {}
    chosen: dict[str, int | float] = {}
    settled: dict[str, SettledKey] = {}
    providers: dict[str, Any] = {}
    seed: int = 0
    stages: list[StageFacts] = []
    notices: list[str] = []
    data: DataFacts | None = None
    environment: dict[str, str] = {}
    resumed: list[dict[str, Any] | None] = []
    continued: list[dict[str, Any]] = []
    tokenizer: TokenizerFacts | None = None
    model: BaseFacts | None = None
    head: HeadFacts | None = None
    adapter_from: AdapterSource | None = None
    teacher: BaseFacts | None = None
    sequences: SequenceFacts | None = None
    forecast: dict[str, int | None] = {}
    memory: MemoryFacts | None = None
    parameters: ParameterFacts | None = None
    stop_tokens: list[int] = []
    metrics: dict[str, Measurement] = {}
    exported: ExportedStep | None = None
    exports: dict[str, ExportFacts] = {}
    error: dict[str, str] | None = None
    failure: StepFailure | None = None
    written: list[str] = []
    kept: dict[str, FileFacts] = {}
    artifacts: dict[str, Any] = {}
    replacing: dict[str, list[FileFacts]] = {}

    def vouched(self, name: str) -> FileFacts | None:
        """Returns what it says of a file of the run: of all of it once the run is over, else of what it begins with."""
        try:
            return FileFacts.model_validate(self.artifacts[name])
        except (KeyError, ValidationError):
            return self.kept.get(name)

    @property
    def training(self) -> Mapping[str, Any]:
        """What the stage of training told, such as its steps and their tokens; nothing where it is not over."""
        stage = next((stage for stage in self.stages if stage.name == "training"), None)
        return {"seconds": stage.seconds, **(stage.model_extra or {})} if stage else {}

    @property
    def unproved(self) -> list[str]:
        """The exports of which nothing says that they compute what was trained."""
        return [name for name, facts in self.exports.items() if facts.proof.get("status") != "proved"]

    @property
    def put_off(self) -> list[str]:
        """Those of them whose proof the recipe put off."""
        return [name for name, facts in self.exports.items() if facts.proof.get("status") == "not yet"]

    @classmethod
    def read(cls, folder: Path) -> RunManifest | None:
        """Returns a run's manifest, or None where the folder holds no run.

        Raises:
            FolderError: It can't be read, is damaged, which the error says by key, or is of a form that this version
                doesn't know.
        """
        path = folder / MANIFEST
        try:
            data = parse_json(read_regular(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            if error.errno not in _OF_ANOTHER_KIND:
                raise FolderError(f"the run's {MANIFEST} can't be read: {error.strerror}", where=str(folder)) from error
            data, odd = None, f"it can't be read: {error.strerror}"
        except ValueError as error:
            data, odd = None, f"it is no JSON: {error}"
        else:
            odd = _oddity(data)
        if odd and any((folder / name).exists() for name in _OF_A_RUN):
            raise FolderError(f"the run's {MANIFEST} is damaged: {odd}", where=str(folder), hint=_PUT_BACK)
        if odd:
            return None
        return cls.from_json(data, str(folder))

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "") -> RunManifest:
        """Returns the manifest that `to_json` gave.

        Args:
            data: The manifest as JSON.
            where: The run's folder, for the error.

        Raises:
            FolderError: It is damaged, or of a form that this version doesn't know.
        """
        if data.get("format", FORMAT) != FORMAT:
            raise FolderError(
                f"the run's {MANIFEST} has the format {data['format']!r:.40}, this graftkit reads {FORMAT}",
                where=where,
                hint=f"graftkit {data.get('graftkit')!s:.40} wrote it: use that, or another folder with --out.",
            )
        try:
            found = cls.model_validate(dict(data))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in first["loc"])
            raise FolderError(
                f"the run's {MANIFEST} is damaged: '{key}': {first['msg'].lower()}, not {first['input']!r:.60}",
                where=where,
                hint=_PUT_BACK,
            ) from None
        try:
            found.to_json()
        except (ValueError, RecursionError):  # pydantic writes about 250 levels
            what = f"the run's {MANIFEST} is damaged: it is nested too deeply to be written again"
            raise FolderError(what, where=where, hint=_PUT_BACK) from None
        return found

    @property
    def left_out(self) -> list[str]:
        """The plugins, or distributions, that the recipe leaves out."""
        section = self.recipe.get("plugins")
        names = section.get("disable") if isinstance(section, dict) else None
        return [name for name in names if isinstance(name, str)] if isinstance(names, list) else []

    def with_facts(self, **facts: Any) -> RunManifest:
        """Returns the manifest with some parts replaced; each is checked.

        Raises:
            pydantic.ValidationError: A part has another shape.
        """
        said = {key: getattr(self, key) for key in self.model_fields_set} | facts
        return RunManifest.model_validate({key: value for key, value in said.items() if key not in _NOT_EMPTY or value})

    def measured(self, stage: str, host: int | None, device: int | None) -> MemoryFacts:
        """Returns what it says of memory, with the most that a stage took, as far as the system tells.

        Args:
            stage: The stage.
            host: The bytes of the host's memory; None where they are not known.
            device: Those of the device's, likewise.
        """
        known = self.memory or MemoryFacts()
        of_host = {stage: host} if host is not None else {}
        of_device = {stage: device} if device is not None else {}
        measured = MemoryMeasured(host=known.measured.host | of_host, device=known.measured.device | of_device)
        return MemoryFacts(forecast=known.forecast, measured=measured)

    def to_json(self) -> dict[str, Any]:
        """Returns what has been said so far, as JSON."""
        return self.model_dump(mode="json", exclude_unset=True)

    def write(self, folder: Path) -> None:
        """Writes the manifest into a run's folder.

        Raises:
            StorageError: The system refused.
        """
        write_json(folder / MANIFEST, self.to_json())


def _oddity(data: Any) -> str:
    """Says by what JSON is known not to be a run's manifest; nothing where it may be one."""
    if not isinstance(data, dict):
        return "it is no JSON object"
    return next((f"it does not say '{key}'" for key in ("graftkit", "status") if key not in data), "")


def required(value: Value | None, key: str, where: str = "") -> Value:
    """Returns a part of a manifest that has to be there.

    Args:
        value: The part, or None.
        key: Its key, for the error.
        where: The run's folder, for the error.

    Raises:
        FolderError: It is not there.
    """
    if value is None:
        raise FolderError(f"its manifest is damaged: it does not say '{key}'", where=where, hint="Run it again.")
    return value
