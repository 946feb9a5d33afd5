"""What an export's adapter is merged onto: refused where there is no such base, measured where that is asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from graftkit.corpus.answers_compared import WANTED
from graftkit.errors import ExportError
from graftkit.flow.exports.probes import Probes, reference_file, run_probes
from graftkit.flow.preparation.base_model import LoadedModel
from graftkit.flow.preparation.corpus import Corpus
from graftkit.interfaces.exporter import Exporter, MergeBase, MergingExporter
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.quantizer import Quantizer
from graftkit.model.adapt import AdaptedModel
from graftkit.model.merge import as_merged, on_base, rounds
from graftkit.model.model_plan import ModelPlan, plan_base_model
from graftkit.report.run_manifest import MergeFacts, MergeScore
from graftkit.store.token_store import TokenStore
from graftkit.training.batch import alone
from graftkit.training.merge_scores import ExampleScores, score_variants

__all__ = ["MergeRequest", "MergeSample", "choose", "holdout_sample", "merge_refusal", "settle_merge"]

_BASES: tuple[MergeBase, ...] = get_args(MergeBase)

_MOST_TOKENS, _MOST_ALONE = 16_384, 32
"""What merges are measured on at most: tokens, and sequences where those run one by one. Each pass makes every layer's
other weight anew."""

_FLOAT32 = "Store it as float32, or bfloat16, which hold larger numbers."

_STANDARD_ERRORS = 2
"""By how many standard errors another base than the trained one must be better to be chosen."""


@dataclass(frozen=True, slots=True)
class MergeSample:
    """What merges are measured on.

    Attributes:
        store: Examples.
        held_out: Whether the model was not trained on them, but on records like them.
        what: What they are, for whoever reads the table.
        microbatch_tokens: Tokens of one forward pass at most.
        exact: Whether it is told at how many examples every token is right.
        keep: Why nothing but what was trained may be chosen by it; "" where another base may.
    """

    store: TokenStore
    held_out: bool
    what: str
    microbatch_tokens: int = 1024
    exact: bool = False
    keep: str = ""


def holdout_sample(corpus: Corpus, microbatch_tokens: int, *, likelihood: bool) -> MergeSample:
    """Returns the holdout records of a run, or those it trained on where none is held out.

    Args:
        corpus: The records.
        microbatch_tokens: Tokens of one forward pass at most.
        likelihood: Whether that is what was minimized. Otherwise whatever takes the training back may be likelier: of
            answers that were compared the chosen or wanted ones are measured, and no other base is chosen.
    """
    held_out = len(corpus.holdout) > 0
    what = "holdout records" if held_out else "records that it was trained on, since none is held out"
    store = corpus.holdout if held_out else corpus.train
    if likelihood:
        return MergeSample(store, held_out, what, microbatch_tokens, exact=bool(corpus.answers))
    keep = "it is what was trained, and a likelihood does not tell how well another base keeps what was learnt"
    if store.sequences_per_example > 1:
        what = f"answers to prefer, of {what}"
    return MergeSample(_wanted(store), held_out, what, microbatch_tokens, keep=keep)


def _wanted(store: TokenStore) -> TokenStore:
    """Returns the answers that are to be given: of pairs the chosen ones, of labelled ones those that are wanted."""
    wanted = (example for example in store if example.by_example.get(WANTED, 1))
    return TokenStore.of(replace(alone(example)[0], by_token={}, by_example={}) for example in wanted)


def _asked(exporter: Exporter) -> tuple[MergeBase | Literal["auto"], torch.dtype] | None:
    """Returns what an exporter has its merged tensors made of, and the type that it stores; None where it can't tell.

    Raises:
        ExportError: It asks for something that there is not.
    """
    if not isinstance(exporter, MergingExporter):
        return None
    onto, dtype = exporter.merge_onto, exporter.merge_dtype
    if onto not in (*_BASES, "auto") or dtype not in ("float32", "bfloat16", "float16"):
        raise ExportError(
            f"the exporter '{type(exporter).__name__}' merges onto {onto!r:.40} in {dtype!r:.40}",
            hint=f"merge_onto is one of {', '.join(_BASES)}, auto, and merge_dtype a type of floating point.",
        )
    return onto, getattr(torch, dtype)


def merge_refusal(
    exporter: Exporter, files: BaseModelFiles, quantizer: Quantizer, model: AdaptedModel | None = None
) -> str | None:
    """Says why an adapter can't be merged onto what an exporter asks for, or None.

    Args:
        exporter: The exporter.
        files: The base model.
        quantizer: What stores its weights.
        model: The model, once the adapter is on it.
    """
    asked = _asked(exporter)
    if asked is None or asked[0] in ("auto", "dequantized"):
        return None
    lacking = _lacking(plan_base_model(files), quantizer, model).get(asked[0])
    return f"onto: {asked[0]}: {lacking}" if lacking else None


def _lacking(planned: ModelPlan, quantizer: Quantizer, model: AdaptedModel | None) -> dict[str, str]:
    """Says which bases there are not to merge onto, and why."""
    found: dict[str, str] = {}
    quantized = planned.quantized_in_files()
    replaced = [layer for layer, weight in model.adapted.items() if weight.replaced] if model else []
    if quantized:
        path, dtype = next(iter(quantized.items()))
        found["original"] = (
            f"the base model's own file holds its weights quantized ({path} as {dtype}): there are no 16-bit ones; "
            "dequantized is what is trained on"
        )
    elif replaced:
        found["original"] = f"the adapter has changed the frozen weight that it stands on, of {replaced[0]}"
    if not rounds(quantizer, [*planned.layers, *(layer for stack in planned.stacks for layer in stack.layers()[:1])]):
        found["requantized"] = "the run's quantizer keeps weights as they are"
    return found


@dataclass(frozen=True, slots=True)
class MergeRequest:
    """What settling a merge needs besides the model.

    Attributes:
        files: The base model.
        quantizer: What stores its weights.
        probes: What exports are proved with, of the trained model.
        probes_file: Where they are kept; those of another base are kept beside it.
        sample: Gives what merges are measured on.
        poll: Called while measuring with how far that is; raises to stop.
    """

    files: BaseModelFiles
    quantizer: Quantizer
    probes: Probes
    probes_file: Path
    sample: Callable[[], MergeSample]
    poll: Callable[[int, int], None] = lambda done, total: None


@contextmanager
def settle_merge(loaded: LoadedModel, exporter: Exporter, request: MergeRequest) -> Iterator[MergeFacts | None]:
    """Has a trained model's `merged_tensors`, and what it computes, be those that an exporter asks for, for a time.

    Of another base than the trained one, what the trained adapter computes on it is kept for the proof.

    Args:
        loaded: The model.
        exporter: The exporter; where it is none that asks, the model stays as it is.
        request: What is needed besides.

    Yields:
        What the export's manifest says of it; None where the exporter asks for nothing.

    Raises:
        ExportError: The exporter asks for something that there is not.
    """
    asked = _asked(exporter)
    if asked is None:
        yield None
        return
    onto, dtype = asked
    facts = _measured(loaded, dtype, request) if onto == "auto" else MergeFacts(onto=onto, asked=onto)
    with on_base(loaded.model.network, facts.onto, loaded.originals):
        if facts.onto != "dequantized":
            of, longest = request.probes, request.probes.coverage.get("longest_example", 0)
            probes = run_probes(loaded, of.ids, longest, of.token_type_ids)
            replace(probes, assets=request.probes.assets).save(reference_file(request.probes_file, facts.onto))
        yield facts
    loaded.originals.forget()


def _measured(loaded: LoadedModel, dtype: torch.dtype, request: MergeRequest) -> MergeFacts:
    left_out = _lacking(plan_base_model(request.files), request.quantizer, loaded.model)
    if "requantized" in left_out and "original" not in left_out:
        left_out["original"] = "nothing was quantized: the base as it was trained on is the original one"
    bases = [onto for onto in _BASES if onto not in left_out]
    if bases == ["dequantized"]:
        return MergeFacts(onto="dequantized", asked="auto", reason="there is no other base", left_out=left_out)
    sample = request.sample()
    network = loaded.model.network
    chosen = _examples(sample.store, loaded.packing.packed)
    found = score_variants(
        network,
        sample.store,
        chosen,
        {onto: partial(_merged_onto, network, onto, loaded, dtype) for onto in bases},
        device=loaded.device,
        microbatch_tokens=sample.microbatch_tokens,
        packed=loaded.packing.packed,
        poll=request.poll,
    )
    for name in [name for name, scores in found.items() if not math.isfinite(scores.loss)]:
        if name in ("trained", "dequantized"):
            raise ExportError(f"merged in {str(dtype).removeprefix('torch.')} its loss is no number", hint=_FLOAT32)
        left_out[name] = "its loss is no number"
        del found[name]
    onto, reason = choose(found, sample)
    tokens = int(found["trained"].tokens.sum())
    return MergeFacts(
        onto=onto,
        asked="auto",
        reason=reason,
        measured_on=f"{tokens:,} tokens in the loss, of {len(chosen):,} {sample.what}",
        scores=[_score(name, scores, sample.exact) for name, scores in found.items()],
        left_out=left_out,
    )


@contextmanager
def _merged_onto(network: Any, onto: MergeBase, loaded: LoadedModel, dtype: torch.dtype) -> Iterator[None]:
    with on_base(network, onto, loaded.originals), as_merged(network, dtype):
        yield


def _examples(store: TokenStore, packed: bool) -> list[int]:
    """Returns the first examples with a token in the loss, as many as are measured on."""
    found: list[int] = []
    room = _MOST_TOKENS
    for number, (length, learnt) in enumerate(zip(store.lengths.tolist(), store.loss_tokens.tolist(), strict=True)):
        if found and (length > room or (not packed and len(found) == _MOST_ALONE)):
            break
        if learnt:
            found.append(number)
            room -= length
    return found


def choose(found: Mapping[str, ExampleScores], sample: MergeSample) -> tuple[MergeBase, str]:
    """Chooses a base by what was measured: the one that was trained on, unless another is better beyond chance.

    Another is taken where its loss on holdout records is lower by more than two standard errors, its answers are not
    right less often, and no other's loss is lower still. Records that were trained on are no evidence for another.

    Args:
        found: The scores of "trained" and of each base.
        sample: What they were measured on.

    Returns:
        The base, and why.
    """
    if sample.keep:
        return "dequantized", sample.keep
    if not sample.held_out:
        return "dequantized", "it is what was trained, and only holdout records could speak for another base"
    trained = found["dequantized"]
    better: list[tuple[float, float, MergeBase]] = []
    for onto in _BASES:
        if onto == "dequantized" or onto not in found:
            continue
        gain, error = found[onto].gain_over(trained)
        if gain > _STANDARD_ERRORS * error and not (sample.exact and found[onto].exact < trained.exact):
            better.append((gain, error, onto))
    if not better:
        return "dequantized", "it is what was trained, and no other base has a lower loss beyond chance"
    gain, error, onto = max(better)
    return (
        onto,
        f"its loss is lower than that of what was trained by {gain:.2g} nats, {gain / error:.1f} standard errors",
    )


def _score(name: str, scores: ExampleScores, exact: bool) -> MergeScore:
    return MergeScore.model_validate(
        {
            "onto": name,
            "loss": scores.loss,
            "kl": scores.mean_kl,
            "top1": scores.agreement,
            "exact": scores.exact if exact else None,
        }
    )
