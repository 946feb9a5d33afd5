"""How a quantized export differs from what was trained, and how much of that the rounding of its weights explains.

Its weights are compared one by one (`weight_sketch.py`), and what they compute as a whole, by which settings show, too.

A weight that was rounded to levels a step apart is off by anything within half a step, as good as at random. So the
export's own weights are moved at random within half a step, and what they compute then differs from what they computed
before as the export differs from what was trained, to first order: by weights that are off as much. The largest of a
few such differences, by Kullback-Leibler divergence, or by 1 - cosine of vectors, is what rounding explains. Three
things make the export's own differ from it: the chance of the draw, blocks whose scale was rounded, too, and Q4_0,
which may cut off the value at its upper end by a whole step. Measured, it is between 0.5 and 1.6 times that; `_TIMES`
it is allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from graftkit.errors import ExportError
from graftkit.flow.exports.expert_choices import choosing, made_otherwise, nearly_even, same_choices, watched
from graftkit.flow.exports.probes import Probes
from graftkit.flow.exports.weight_sketch import SketchProof, compare_sketches
from graftkit.flow.folders.export_manifest import MAX_TOLERANCE
from graftkit.interfaces.architecture import Head, head_of
from graftkit.interfaces.exporter import Exporter, ExportReading, ProofRequest, QuantizingExporter
from graftkit.model.dense_model import load_plain_model

__all__ = [
    "MAX_DISTANCE",
    "MAX_DIVERGENCE",
    "ReadComparison",
    "ReadLogits",
    "RoundingProof",
    "compare_rounding",
    "quantizes",
    "read_logits",
    "reading_of",
]

_DRAWS = 2
_TIMES = 3
_FLIPPED = 3
"""Times as far off as rounding moves the logits a program may be that rounds likewise."""
_LEAST = 5e-3
"""Nats that are explained in any case. Where a model chooses experts, a choice that rounding turns at one position
costs as much, and a few draws may turn none; matrices are compared one by one besides."""

MAX_DIVERGENCE = 0.7
"""Nats beyond which nothing is explained by rounding, whatever steps an exporter claims: an even choice."""


MAX_DISTANCE = 0.1
"""Of vectors, likewise: 1 - cosine."""


@dataclass(frozen=True, slots=True)
class RoundingProof:
    """How a quantized export's own reading differs from what was trained.

    Attributes:
        divergence: The mean Kullback-Leibler divergence of its next tokens, or labels, from those of what was trained,
            in nats; of vectors the mean of 1 - cosine.
        allowed: How large that may be.
        top1_agreement: The share of positions at which both find the same token, or label, likeliest; None of vectors.
        loss_difference: By how much its loss at the probes' own next tokens is larger, in nats a token; None without.
        weights: How its weights differ, one by one; None where nothing was kept of the trained ones.
    """

    divergence: float
    allowed: float
    top1_agreement: float | None
    loss_difference: float | None
    weights: SketchProof | None = None

    @property
    def explained(self) -> bool:
        """Whether rounding explains both."""
        return self.divergence <= self.allowed and (self.weights is None or self.weights.excess <= 1)


@dataclass(frozen=True, slots=True)
class ReadLogits:
    """What an export's own weights compute, for each probe `[positions, vocabulary]`.

    Attributes:
        exact: In float32.
        rounded: With what the export's program rounds besides the weights.
        smooth: The latter where routers choose the experts that they chose in the former.
        turned: For each probe how far a logit moves at most where choices of experts that are nearly even are made
            otherwise (`expert_choices.py`), `[positions]`; zeros for a model that chooses none.
    """

    exact: list[torch.Tensor]
    rounded: list[torch.Tensor]
    smooth: list[torch.Tensor]
    turned: list[torch.Tensor]

    def comparison(self, probes: Probes, share: float) -> ReadComparison:
        """Returns what the program is compared with, at which positions, and how far it may be off there.

        A number next to the middle of two levels may be rounded to the other one, after which other numbers are; so the
        program differs from `rounded` about as `smooth` does from `exact`.

        Positions that choices of experts move more than the program may be off are set aside; half of them at most, so
        that with a model whose choices are nearly even everywhere the others are compared less closely.

        Args:
            probes: What was asked.
            share: How far a logit may be off besides, as a share of the largest one.

        Raises:
            ExportError: Choices of experts move more than half of the positions by more than any format explains.
        """
        largest = max(logits.abs().max().item() for logits in self.exact)
        least, most = max(1e-4, share * largest), 2 * MAX_TOLERANCE * largest
        turned = torch.cat(self.turned)
        limit = max(least, turned.median().item())
        kept = [moved <= limit for moved in self.turned]
        tolerance = (
            least + _FLIPPED * _furthest(self.exact, self.smooth, probes.head) + turned[turned <= limit].max().item()
        )
        if limit > max(least, most):  # logits that are all zero or tiny are no fault of choices
            raise ExportError(
                "it can't be proved: choices of experts that are nearly even move the logits of more than half of the "
                f"positions by more than {most:.2g}",
                hint="Two programs would differ as much. Export it with a finer type.",
            )
        return ReadComparison(_at(replace(probes, logits=self.rounded), kept), min(tolerance, most), _counted(kept))


@dataclass(frozen=True, slots=True)
class ReadComparison:
    """What a program's logits are compared with.

    Attributes:
        probes: The positions that are compared, with what the export's own weights compute there.
        tolerance: How far a logit may be off.
        set_aside: How many positions are not compared.
    """

    probes: Probes
    tolerance: float
    set_aside: int = 0


def _at(probes: Probes, kept: Sequence[torch.Tensor]) -> Probes:
    """Returns the probes with the positions that are kept; those that have none are left out."""
    rows = [(number, of_probe.nonzero().squeeze(1)) for number, of_probe in enumerate(kept) if of_probe.any()]
    return replace(
        probes,
        ids=[probes.ids[number] for number, _ in rows],
        logits=[probes.logits[number][kept] for number, kept in rows],
        positions=[[probes.positions[number][row] for row in kept.tolist()] for number, kept in rows],
        token_type_ids=[probes.token_type_ids[number] for number, _ in rows if probes.token_type_ids],
        experts=[
            [replace(router, scores=router.scores[kept]) for router in probes.experts[number]]
            for number, kept in rows
            if probes.experts
        ],
    )


def _counted(kept: Sequence[torch.Tensor]) -> int:
    return sum(int((~of_probe).sum()) for of_probe in kept)


def _furthest(ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], head: Head) -> float:
    return max(_moved_by(one, other, head).max().item() for one, other in zip(ours, theirs, strict=True))


def _moved_by(ours: torch.Tensor, theirs: torch.Tensor, head: Head) -> torch.Tensor:
    """Returns how far a log-probability, or a number of a vector, differs at most, `[positions]`."""
    if head != "embedding":
        ours, theirs = ours.log_softmax(1), theirs.log_softmax(1)
    return (ours - theirs).abs().amax(1)


def quantizes(exporter: Exporter) -> bool:
    """Tells whether an exporter's weights are rounded, so that its exports are compared by their reading."""
    return isinstance(exporter, QuantizingExporter) and exporter.quantizes


def reading_of(exporter: Exporter, request: ProofRequest) -> ExportReading | None:
    """Returns an export's reading; None where its weights are not rounded."""
    return exporter.reading(request) if isinstance(exporter, QuantizingExporter) and exporter.quantizes else None


def read_logits(reading: ExportReading, request: ProofRequest, folder: Path) -> ReadLogits:
    """Computes what the export's own weights compute.

    Args:
        reading: The export.
        request: The probes.
        folder: Where weights are kept while they are needed.
    """
    model = load_plain_model(reading.files, folder, _as_it_is)

    head = head_of(reading.files.config)

    def compute() -> list[torch.Tensor]:
        return request.run(model)

    exact, chosen = watched(compute)
    reading.round_as_program(model)
    rounded, made = watched(compute)
    smooth, scored = (rounded, made) if same_choices(chosen, made) else choosing(chosen, compute)
    even = nearly_even(made, list(zip(chosen, scored, strict=True)), _FLIPPED)
    others = made_otherwise(even, compute) if any(each.any() for each in even) else []
    turned = [
        torch.stack([torch.zeros(len(own)), *(_moved_by(own, other[number], head) for other in others)]).amax(0)
        for number, own in enumerate(rounded)
    ]
    return ReadLogits(exact, rounded, smooth, turned)


def compare_rounding(
    reading: ExportReading, read: Sequence[torch.Tensor], probes: Probes, request: ProofRequest, folder: Path
) -> RoundingProof:
    """Compares what an export's own weights compute with what was trained.

    Args:
        reading: The export.
        read: What its weights compute in float32.
        probes: What is kept of the trained model.
        request: The probes.
        folder: Where weights are kept while they are needed.
    """
    of_vectors, explained = probes.head == "embedding", []
    diverge, most = (_distance, MAX_DISTANCE) if of_vectors else (_divergence, MAX_DIVERGENCE)
    for draw in range(_DRAWS):
        moved = _moved(reading, torch.Generator().manual_seed(draw))
        explained.append(diverge(read, request.run(load_plain_model(reading.files, folder, moved))))
    trained = probes.logits
    agreeing = [ours.argmax(1) == theirs.argmax(1) for ours, theirs in zip(trained, read, strict=True)]
    return RoundingProof(
        min(diverge(trained, read), 1e308),
        min(most, _TIMES * max(explained) + _LEAST),
        None if of_vectors else torch.cat(agreeing).float().mean().item(),
        None if of_vectors else _loss_difference(probes, read),
        compare_sketches(reading, probes.sketches),
    )


def _as_it_is(name: str, weight: torch.Tensor) -> torch.Tensor:
    return weight


def _moved(reading: ExportReading, generator: torch.Generator) -> Callable[[str, torch.Tensor], torch.Tensor]:
    def move(name: str, weight: torch.Tensor) -> torch.Tensor:
        steps = reading.steps(name)
        if steps is None:
            return weight
        return torch.rand(weight.shape, generator=generator).sub_(0.5).mul_(steps).add_(weight)

    return move


def _divergence(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Returns the mean over positions; infinite where a number is not finite or shapes differ."""
    every = []
    for ours, theirs in zip(expected, found, strict=True):
        width = min(ours.shape[1], theirs.shape[1])
        p, q = (logits[:, :width].double().log_softmax(1) for logits in (ours, theirs))
        if p.shape != q.shape:
            return float("inf")
        every.append((p.exp() * (p - q)).sum(1))
    mean = torch.cat(every).mean().item()
    return mean if mean == mean else float("inf")


def _distance(expected: Sequence[torch.Tensor], found: Sequence[torch.Tensor]) -> float:
    """Returns the mean of 1 - cosine over vectors; infinite where a number is not finite or shapes differ."""
    if any(ours.shape != theirs.shape for ours, theirs in zip(expected, found, strict=True)):
        return float("inf")
    mean = (
        1 - torch.cosine_similarity(torch.cat(list(expected)).double(), torch.cat(list(found)).double()).mean().item()
    )
    return mean if mean == mean else float("inf")


def _loss_difference(probes: Probes, read: Sequence[torch.Tensor]) -> float | None:
    found = []
    for ids, positions, ours, theirs in zip(probes.ids, probes.positions, probes.logits, read, strict=True):
        rows = [row for row, position in enumerate(positions) if position + 1 < len(ids)]
        following = torch.tensor([ids[positions[row] + 1] for row in rows], dtype=torch.int64)[:, None]
        ours, theirs = (logits[rows].log_softmax(1).gather(1, following) for logits in (ours, theirs))
        found.append((ours - theirs).squeeze(1))
    every = torch.cat(found)
    return every.mean().item() if len(every) else None
