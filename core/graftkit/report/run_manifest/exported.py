"""What a run says of its exports: what each was merged onto, and its proof."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from graftkit.interfaces.exporter import MergeBase
from graftkit.report.run_manifest.facts import Facts

__all__ = [
    "ExportFacts",
    "MergeFacts",
    "MergeScore",
]


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
