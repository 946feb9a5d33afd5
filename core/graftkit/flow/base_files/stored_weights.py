"""Says what becomes of the matrices that a base model's file holds quantized."""

from __future__ import annotations

from collections.abc import Iterable

from graftkit.interfaces.config import ProviderConfig
from graftkit.model.stored_weights import StoredUse

__all__ = ["describe_stored"]


def describe_stored(
    uses: Iterable[StoredUse], quantizer: str, config: ProviderConfig, itemsize: int, *, exported: bool
) -> list[str]:
    """Returns a notice for each format of a file.

    Args:
        uses: What becomes of the matrices of each.
        quantizer: The name of the run's quantizer.
        config: Its fields.
        itemsize: The bytes of a number in the type of the computation.
        exported: Whether the recipe asks for an export.
    """
    return [_describe(use, quantizer, config, itemsize, exported=exported) for use in uses]


def _describe(use: StoredUse, quantizer: str, config: ProviderConfig, itemsize: int, *, exported: bool) -> str:
    said = []
    if use.kept:
        said.append(f"{use.kept:,} matrices that the file holds as {use.kind} are trained on as they lie")
    if use.anew:
        number = f"{len(use.anew):,}"
        which = (
            f"{number} others, which the architecture has the other way round or several in one tensor,"
            if use.kept
            else f"{number} matrices that the file holds as {use.kind}"
        )
        sizes = _sizes(use, config, itemsize)
        said.append(f"{which} are dequantized and stored anew by the quantizer {quantizer}{sizes}")
    if use.can_be_kept:
        said.append("`quantizer: stored` trains on them as they lie")
    if exported:
        said.append("an export of the whole model is made of their dequantized numbers")
    return "; ".join(said)


def _sizes(use: StoredUse, config: ProviderConfig, itemsize: int) -> str:
    taken = [config.stored_bytes(layer, itemsize) for layer in use.anew]
    if use.anew_bytes is None or None in taken:
        return ""
    return f", in {sum(size or 0 for size in taken):,} bytes, {use.anew_bytes:,} in the file"
