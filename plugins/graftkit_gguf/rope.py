"""Rotary embeddings in GGUF: settings, and the factors of frequencies where they are a tensor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError

from graftkit_gguf.metadata import NOT_SUPPORTED, Metadata

if TYPE_CHECKING:
    import numpy as np

__all__ = ["FACTORS", "rope_factors", "rope_from_factors", "rope_from_metadata", "rope_metadata"]

FACTORS = "rope_freqs.weight"
"""The tensor by whose values frequencies are divided, `[rotated / 2]`: how llama3's form is written."""

_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
_YARN = {"beta_fast": (None, 32, 32.0), "beta_slow": (None, 1, 1.0), "truncate": (None, True)}


def rope_metadata(rope: Mapping[str, Any], allowed: tuple[str, ...]) -> dict[str, Any]:
    """Returns the keys that say how positions are scaled, without the architecture's name.

    Args:
        rope: `rope_parameters` of a complete config.json.
        allowed: The types that the architecture may have.

    Raises:
        ModelError: It has another.
    """
    kind = rope.get("rope_type", "default")
    if kind not in allowed:
        raise ModelError(f"a rope of the type '{kind}' can't be written as GGUF for this architecture")
    if kind == "linear":
        return {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if kind == "yarn":
        factor = float(rope["factor"])
        usual = 0.1 * math.log(factor) + 1 if factor > 1 else 1.0
        given = rope.get("attention_factor")
        odd = [key for key, values in _YARN.items() if rope.get(key) not in values]
        odd += [key for key in ("mscale", "mscale_all_dim") if rope.get(key)]
        if odd or (given is not None and not math.isclose(given, usual)):
            raise ModelError(
                f"a rope of the type 'yarn' with its own {(odd or ['attention_factor'])[0]} can't be written"
            )
        return {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": factor,
            "rope.scaling.original_context_length": int(rope["original_max_position_embeddings"]),
        }
    return {}


def rope_from_metadata(metadata: Metadata, name: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Returns `rope_parameters` without `rope_theta`; what `rope_metadata` gave comes back.

    Args:
        metadata: The file's.
        name: The architecture's name.
        allowed: The types that it may have.

    Raises:
        ModelError: Positions are scaled in another way.
    """
    kind = metadata.text(f"{name}.rope.scaling.type", "none")
    factor = metadata.values.get(f"{name}.rope.scaling.factor", 1)
    if kind == "none":
        if factor not in (0, 1):
            shown = metadata.shown(f"{name}.rope.scaling.factor")
            raise metadata.refused(f"'{name}.rope.scaling.factor' is {shown}, which is not supported")
        return {"rope_type": "default"}
    if kind not in ("linear", "yarn") or kind not in allowed:
        raise metadata.refused(f"'{name}.rope.scaling.type' is {kind[:80]!r}, which is not supported")
    found = {"rope_type": kind, "factor": metadata.positive(f"{name}.rope.scaling.factor")}
    if kind == "yarn":
        original = metadata.integer(f"{name}.rope.scaling.original_context_length", least=1)
        found["original_max_position_embeddings"] = original
    return found


def rope_factors(rope: Mapping[str, Any], rotated: int) -> np.ndarray[Any, Any] | None:
    """Returns by what each frequency is divided, `[rotated / 2]`, or None where by nothing.

    Args:
        rope: `rope_parameters` of a complete config.json.
        rotated: The dimensions of a head that are rotated.

    Source: `_compute_llama3_parameters` of transformers.
    """
    import numpy as np

    if rope.get("rope_type") != "llama3":
        return None
    waves = 2 * math.pi * float(rope["rope_theta"]) ** (np.arange(0, rotated, 2) / rotated)
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    original = rope["original_max_position_embeddings"]
    smooth = (original / waves - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    found = np.where(waves < original / high, 1.0, np.where(waves > original / low, factor, between))
    return found.astype(np.float32)


def rope_from_factors(factors: np.ndarray[Any, Any], rope: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Returns the `rope_parameters` of which `rope_factors` gives these.

    Args:
        factors: The tensor, `[rotated / 2]`.
        rope: `rope_theta`.
        where: The file, for the error.

    Raises:
        ModelError: They are of no model in use: a file does not say how they were made.
    """
    import numpy as np

    for original in (8192, 4096, 16384, 32768):
        found = {**rope, **_LLAMA3, "rope_type": "llama3", "factor": float(factors.max())}
        found["original_max_position_embeddings"] = original
        made = rope_factors(found, 2 * len(factors))
        if made is not None and np.allclose(made, factors, rtol=1e-5, atol=0):
            return found
    raise ModelError(
        f"its {FACTORS!r} scales frequencies in a way that is not supported", where=where, hint=NOT_SUPPORTED
    )
