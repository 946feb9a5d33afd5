"""A run's figures in words, for the terminal and the page alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from graftkit.report.compared_numbers import ComparedNumbers, compared_in
from graftkit.report.figure_text import number_text, score_text
from graftkit.report.run_manifest import MergeFacts, MergeScore, RunManifest, required

__all__ = [
    "exported_text",
    "memory_rows",
    "merge_rows",
    "merge_text",
    "metric_columns",
    "metric_rows",
    "objective_of",
    "proof_text",
    "samples_answers",
    "training_seconds",
    "vocabulary_text",
]


WHEN = {"base": "base model", "before": "before", "after": "after"}
"""The moments at which a run measures: with the base model's own vocabulary, before training and after it."""


def metric_columns(manifest: RunManifest) -> list[str]:
    """Returns the headings: before and after training, and the base model where the run changed its vocabulary."""
    return [WHEN[when] for when in _moments(manifest)]


def metric_rows(manifest: RunManifest) -> list[tuple[str, ...]]:
    """Returns each measure's name and its value at each moment of `metric_columns`.

    Losses of a token mean nothing across vocabularies: where the vocabulary changed, bits per byte come alone.
    """
    found = [manifest.metrics.get(when) for when in _moments(manifest)]
    rows: list[tuple[str, ...]] = []
    if not found:
        return rows
    if "base" not in manifest.metrics:
        rows.append(("holdout loss", *(number_text(facts.holdout_loss if facts else None) for facts in found)))
    if any(facts and facts.bits_per_byte is not None for facts in found):
        rows.append(("bits per byte", *(number_text(facts.bits_per_byte if facts else None) for facts in found)))
    for name in dict.fromkeys(name for facts in found if facts for name in facts.metrics):
        rows.append((name, *(number_text(facts.metrics.get(name) if facts else None) for facts in found)))
    answers = next((facts.answers for facts in found if facts and facts.answers), 0)
    labels = dict.fromkeys(label for facts in found if facts for label in facts.scores)
    rows += [
        (
            f"{label.replace('-', ' ')} ({answers} answers)",
            *(score_text(facts.scores.get(label) if facts else None) for facts in found),
        )
        for label in labels
    ]
    return rows


def memory_rows(manifest: RunManifest) -> list[tuple[str, ...]]:
    """Returns the headings, and what each stage was forecast and measured to take; nothing where nothing is known."""
    memory = manifest.memory
    if memory is None or not (memory.measured.host or memory.measured.device):
        return []
    forecast = {stage.stage: stage for stage in memory.forecast.stages} if memory.forecast else {}
    on_device = memory.forecast is not None and memory.forecast.device != "cpu"
    measured = memory.measured.device if on_device else memory.measured.host
    told = {name: stage.device if on_device else stage.host for name, stage in forecast.items()}
    if not told:
        return [("stage", "measured, MB"), *((stage, _megabytes(size)) for stage, size in measured.items())]
    rows = [(stage, _megabytes(told.get(stage)), _megabytes(size)) for stage, size in measured.items()]
    return [("stage", f"forecast, MB of {'the device' if on_device else 'the machine'}", "measured, MB"), *rows]


def _megabytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 1e6:,.0f}"


def training_seconds(manifest: RunManifest) -> float:
    """Returns how long the steps of training took, those before a run was resumed among them, and nothing else.

    Raises:
        FolderError: The manifest says no number.
    """
    facts = manifest.training
    seconds = facts.get("step_seconds", facts.get("seconds", 0.0))
    return float(required(seconds if isinstance(seconds, int | float) else None, "step_seconds"))


def objective_of(manifest: RunManifest) -> str:
    """Returns the name of what a run minimizes."""
    facts = manifest.providers.get("objective")
    return str(facts.get("name", "sft")) if isinstance(facts, dict) else "sft"


def samples_answers(recipe: Mapping[str, Any] | None) -> bool:
    """Tells whether a run learns from answers that it samples, so that no token of its records is in the loss.

    Args:
        recipe: Its recipe with every default filled in.
    """
    fields = (recipe or {}).get("objective")
    return isinstance(fields, Mapping) and {"group_size", "max_new_tokens", "rewards"} <= fields.keys()


def exported_text(manifest: RunManifest) -> str:
    """Says which step was exported, and why; nothing where that is the last one of all that were planned."""
    found = manifest.exported
    if found is None or found.step == found.planned:
        return ""
    early = f"stopped early after step {found.taken}: {found.stopped_early}" if found.stopped_early else ""
    return "; ".join(filter(None, [f"exported: step {found.step} of {found.planned}, {found.reason}", early]))


def _moments(manifest: RunManifest) -> list[str]:
    return [when for when in WHEN if when in manifest.metrics or (when != "base" and manifest.metrics)]


def proof_text(proof: Mapping[str, Any]) -> str:
    """Says what proving an export gave: what was compared, what that covers, and what its exporter only claims."""
    if proof["status"] != "proved":
        return f"not proved: {proof['reason']}"
    programs = " and ".join(f"{name} {version}" for name, version in proof["loaded_with"].items())
    numbers, covered = compared_in(proof), proof.get("covers", ["logits"])
    within = f"{numbers.name} within {proof['max_abs_diff']:.1e} of {proof['tolerance']:.1e} allowed"
    longest = proof.get("coverage", {}).get("longest")
    parts = [
        within + (f", up to {longest} tokens" if longest else ""),
        _chosen_otherwise(proof.get("chosen_otherwise")),
        _set_aside(proof.get("set_aside")),
        _rounded(proof.get("rounding"), numbers),
        _on_base(proof.get("base_stored_by")),
        "transformers makes another tokenizer of the base model's files: take this one"
        if proof.get("base_tokenizer")
        else "",
        _from_trained(proof),
        _on_base_file(proof.get("on_base_file")),
        f"covers: {', '.join(covered)}",
        f"claims: loaded with {programs}" if programs else "",
    ]
    return f"proved: {'; '.join(filter(None, parts))}"


def _chosen_otherwise(found: Sequence[int] | None) -> str:
    """Says how many choices a mixture of experts makes otherwise than the trained model, with whose it was compared."""
    if not found:
        return ""
    return f"with the trained model's choices of experts, of which {found[0]} of {found[1]} are nearly even and turned"


def _set_aside(found: Sequence[int] | None) -> str:
    """Says how many positions of a mixture of experts were not compared."""
    if not found:
        return ""
    return f"{found[0]} of {found[1]} positions set aside, where nearly even choices of experts move the logits"


def _rounded(found: Mapping[str, Any] | None, numbers: ComparedNumbers) -> str:
    """Says how a quantized export differs from what was trained."""
    if found is None:
        return ""
    loss, same = found["loss_difference"], found.get("top1_agreement")
    parts = [
        f"quantized: each of {found['weights']['compared']:,} weights within rounding" if found.get("weights") else "",
        f"{numbers.divergence} {found['divergence']:.1e} of {found['allowed']:.1e} that rounding explains",
        f"the same likeliest {numbers.likeliest} at {same:.0%} of positions" if same is not None else "",
        f"loss {loss:+.4f}" if loss is not None else "",
    ]
    return ", ".join(filter(None, parts))


def _on_base(quantizer: str | None) -> str:
    """Says on which weights an adapter was proved, where those are not the base model's own."""
    return f"on the base model with the quantizer {quantizer}" if quantizer and quantizer != "none" else ""


def _from_trained(proof: Mapping[str, Any]) -> str:
    """Says how far a model is from the trained one whose adapter was merged onto another base."""
    found = proof.get("from_trained")
    if not found:
        return ""
    off = f"off from the trained model by {found['largest']:.1e}, {found['mean']:.1e} in the mean"
    same = f", the same likeliest {compared_in(proof).likeliest} at {found['top1']:.1%}" if "top1" in found else ""
    return f"merged onto {proof['merged_onto']}: {off}{same}"


def merge_text(merge: MergeFacts) -> str:
    """Says what an adapter was merged onto and why; nothing where that is what was trained, and nobody asked."""
    if merge.asked == "dequantized":
        return ""
    return f"merged onto {merge.onto}" + (f", chosen by measuring: {merge.reason}" if merge.asked == "auto" else "")


def merge_rows(merge: MergeFacts) -> list[tuple[str, ...]]:
    """Returns the headings, and what was measured of the trained model and of each base; nothing where nothing was."""
    if not merge.scores:
        return []
    exact = any(score.exact is not None for score in merge.scores)
    heading = ("merged onto", "loss", "KL divergence", "same token", *(["exact"] if exact else []))
    return [heading, *(_merge_row(score, merge.onto, exact=exact) for score in merge.scores)]


def _merge_row(score: MergeScore, chosen: str, *, exact: bool) -> tuple[str, ...]:
    trained = score.onto == "trained"
    name = "(the trained model)" if trained else f"{score.onto}{' (chosen)' if score.onto == chosen else ''}"
    values = [f"{score.loss:.4f}", *(["", ""] if trained else [f"{score.kl:.1e}", f"{score.top1:.2%}"])]
    return (name, *values, *([f"{score.exact or 0:.1%}"] if exact else []))


def _on_base_file(found: Mapping[str, Any] | None) -> str:
    """Says how an adapter computes on the base model's own file."""
    if found is None:
        return ""
    without = f"without the adapter {found['base_max_abs_diff']:.1e}"
    if found["same_weights"]:
        return f"on {found['file']} within {found['max_abs_diff']:.1e} of {found['tolerance']:.1e} allowed ({without})"
    return f"on {found['file']}, whose weights are others, off by {found['max_abs_diff']:.1e} ({without})"


def vocabulary_text(manifest: RunManifest) -> str:
    """Says what became of the base model's vocabulary; nothing where it stayed."""
    facts = manifest.tokenizer
    if facts is None or facts.change is None:
        return ""
    text = f"vocabulary {facts.change}: {facts.new_rows:,} rows trained, {facts.vocab_size:,} ids"
    corpus = facts.corpus_tokens
    return f"{text}; {corpus['saved']:.1%} fewer tokens for its corpus" if corpus else text
