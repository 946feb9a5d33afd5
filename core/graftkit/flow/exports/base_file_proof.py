"""How an adapter computes on the base model's own file, in the program that its users load it with."""

from __future__ import annotations

from dataclasses import dataclass, replace

from graftkit.errors import ExportError
from graftkit.flow.exports.probes import Probes, allowed_difference, compare
from graftkit.interfaces.exporter import BaseFileExporter, Exporter, ProofRequest

__all__ = ["BaseFileProof", "prove_on_base_file"]

_OF_THE_BASE = 3
"""How many times as far off as the base model alone an adapter may be on it. Measured on SmolLM2-135M in Q4_1, whose
products llama.cpp rounds to 8 bits: 1.03 with an adapter, 0.92 without, and 20 where it is left out; on a tiny random
model in Q8_0, which a large adapter changes wholly, 0.42 and 0.23."""


@dataclass(frozen=True, slots=True)
class BaseFileProof:
    """What was found on the base model's own file.

    Attributes:
        file: Its name.
        same_weights: Whether its weights are those that were trained on. Where they are not, nothing is asked of the
            differences.
        max_abs_diff: The largest difference of a logit with the adapter.
        base_max_abs_diff: The largest difference without it, from the base model as it was trained on.
        tolerance: How large the former may be.
    """

    file: str
    same_weights: bool
    max_abs_diff: float
    base_max_abs_diff: float
    tolerance: float


def prove_on_base_file(exporter: Exporter, probes: Probes, request: ProofRequest, share: float) -> BaseFileProof | None:
    """Compares what the exporter's program computes on the base model's own file, with the adapter and without.

    The program may round more there than the format of the adapter explains, since it multiplies blocks that are
    quantized. So it is asked for the base model alone, too. With the adapter other numbers are rounded: the largest of
    their differences is of the same size, and not the same (`_OF_THE_BASE`).

    Args:
        exporter: The exporter.
        probes: What the trained model makes of the sequences.
        request: What the exporter is asked.
        share: How far a logit may be off for the format's precision, as a share of the largest.

    Returns:
        What was found, or None where the exporter has nothing to say of such a file.

    Raises:
        ExportError: Its weights are those that were trained on, and the adapter computes something else on them.
    """
    found = exporter.on_base_file(request) if isinstance(exporter, BaseFileExporter) else None
    if found is None:
        return None
    given = getattr(exporter, "log_probabilities", False)
    alone = replace(probes, logits=request.run(request.base()))
    base = compare(alone, found.base, log_probabilities=given)
    adapted = compare(probes, found.adapted, log_probabilities=given)
    explained = allowed_difference(probes, share)
    allowed, mean = (_OF_THE_BASE * off + explained for off in (base.largest, base.mean))
    if found.same_weights and not (adapted.largest <= allowed and adapted.mean <= mean):
        raise ExportError(
            f"on {found.file} itself it computes something else than what was trained: logits differ by "
            f"{adapted.largest:.2g}, where they differ by {base.largest:.2g} without the adapter",
            where=str(request.folder),
            hint="Do not use it. It is kept for a look.",
        )
    largest, without = (min(comparison.largest, 1e308) for comparison in (adapted, base))
    return BaseFileProof(found.file, found.same_weights, largest, without, min(allowed, 1e308))
