"""Rotary embeddings in GGUF: settings, and the factors of frequencies where they are tensors.

llama.cpp divides the frequency of each pair of dimensions by an element of `rope_freqs.weight` (Llama 3), or of
`rope_factors_long.weight` or `rope_factors_short.weight` (Phi 3), by whether the context that it is started with is
longer than the original one. Parameters as in transformers' `modeling_rope_utils`; YaRN is
https://arxiv.org/abs/2309.00071, LongRoPE https://arxiv.org/abs/2402.13753.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError

from graftkit_gguf.metadata import NOT_SUPPORTED, Metadata

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "FACTORS",
    "LONG_FACTORS",
    "ROPE_KEYS",
    "SHORT_FACTORS",
    "factor_tensors",
    "rope_factors",
    "rope_from_factors",
    "rope_from_metadata",
    "rope_metadata",
    "rope_notices",
    "shortest",
]

FACTORS = "rope_freqs.weight"
"""The tensor by whose values frequencies are divided, `[rotated / 2]`: how llama3's form is written."""
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
"""Those of a context longer than the original one, and of another: how longrope is written."""

_TYPE, _FACTOR, _ORIGINAL = "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length"
_ATTENTION = "rope.scaling.attn_factor"
_FIXED = {
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.yarn_attn_factor": 1.0,
}
"""Keys of YaRN that llama.cpp reads for none of these architectures, and what it takes."""

ROPE_KEYS = frozenset({"rope.dimension_count", _TYPE, _FACTOR, _ORIGINAL, _ATTENTION, *_FIXED})
"""The keys that are read here, without the architecture's name."""

_ANY = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
_KNOWN: Mapping[str, set[str]] = {
    "default": {"original_max_position_embeddings"},
    "linear": {"factor"},
    "llama3": {"factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"},
    "yarn": {
        *("factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow"),
        *("mscale", "mscale_all_dim"),
    },
    "longrope": {"factor", "original_max_position_embeddings", "attention_factor", "long_factor", "short_factor"},
}
_MEANS_NOTHING = (("truncate", True),)
_BETAS = {"beta_fast": 32, "beta_slow": 1}

_LLAMA3_ORIGINAL = 8192


def rope_metadata(rope: Mapping[str, Any], allowed: tuple[str, ...], context: int) -> dict[str, Any]:
    """Returns the keys that say how positions are scaled, without the architecture's name.

    Args:
        rope: `rope_parameters` of a complete config.json.
        allowed: The types that the architecture may have.
        context: `max_position_embeddings`.

    Raises:
        ModelError: It has another, or says more of it than llama.cpp knows.
    """
    kind = rope.get("rope_type", "default")
    if kind not in allowed:
        raise ModelError(f"a rope of the type '{kind}' can't be written as GGUF for this architecture")
    for key, value in rope.items():
        if key not in _KNOWN[kind] | _ANY and value is not None and (key, value) not in _MEANS_NOTHING:
            raise ModelError(f"a rope of the type '{kind}' with {key} = {value!r} can't be written as GGUF")
    if kind == "linear":
        return {_TYPE: "linear", _FACTOR: float(rope["factor"])}
    if kind == "llama3":
        return {_ORIGINAL: int(rope["original_max_position_embeddings"])}
    if kind == "yarn":
        return _yarn_metadata(rope, context)
    if kind == "longrope":
        return {
            _TYPE: "longrope",
            _ORIGINAL: int(rope["original_max_position_embeddings"]),
            _ATTENTION: _longrope_attention(rope, context),
        }
    return {}


def _yarn_metadata(rope: Mapping[str, Any], context: int) -> dict[str, Any]:
    original = int(rope["original_max_position_embeddings"])
    factor = float(rope.get("factor") or context / original)
    found: dict[str, Any] = {_TYPE: "yarn", _FACTOR: factor, _ORIGINAL: original}
    for name, only in _BETAS.items():
        if (rope.get(name) or only) != only:
            raise ModelError(
                f"a rope of the type 'yarn' with {name} = {rope[name]} can't be written: llama.cpp has {only}"
            )
    usual = _magnitude(factor)
    given = rope.get("attention_factor")
    if given is None and rope.get("mscale") and rope.get("mscale_all_dim"):
        given = _magnitude(factor, rope["mscale"]) / _magnitude(factor, rope["mscale_all_dim"])
    if given is not None and not math.isclose(given, usual):
        found[_ATTENTION] = given / usual
    return found


def _magnitude(factor: float, scale: float = 1.0) -> float:
    """Returns by what YaRN multiplies queries and keys."""
    return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0


def _longrope_attention(rope: Mapping[str, Any], context: int) -> float:
    """Returns by what LongRoPE multiplies queries and keys."""
    original = rope["original_max_position_embeddings"]
    factor = rope.get("factor") or context / original
    if rope.get("attention_factor") is not None:
        return float(rope["attention_factor"])
    return math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0


def rope_notices(rope: Mapping[str, Any]) -> list[str]:
    """Says where llama.cpp computes otherwise than transformers, by how it is started.

    Args:
        rope: `rope_parameters` of a complete config.json.
    """
    if rope.get("rope_type") != "longrope":
        return []
    original = rope["original_max_position_embeddings"]
    return [
        f"llama.cpp takes longrope's factors of long sequences whenever it is started with a context of more than "
        f"{original:,} tokens, and those of short ones else, where training looked at each sequence: start it with "
        f"`-c {original}` for shorter ones"
    ]


def rope_from_metadata(metadata: Metadata, name: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    """Returns `rope_parameters` without `rope_theta` and factors; what `rope_metadata` gave comes back.

    Args:
        metadata: The file's.
        name: The architecture's name.
        allowed: The types that it may have.

    Raises:
        ModelError: Positions are scaled in another way.
    """
    kind = metadata.text(f"{name}.{_TYPE}", "none")
    factor = metadata.values.get(f"{name}.{_FACTOR}", 1)
    if kind in ("none", "longrope") and factor not in (0, 1):
        raise _not_supported(metadata, f"{name}.{_FACTOR}")
    fixed = {**_FIXED, **({} if kind in ("yarn", "longrope") else {_ATTENTION: 1.0})}
    for key, only in fixed.items():
        if metadata.values.get(f"{name}.{key}", only) != only:
            raise _not_supported(metadata, f"{name}.{key}")
    if kind == "none":
        return {"rope_type": "default"}
    if kind not in ("linear", "yarn", "longrope") or kind not in allowed:
        raise _not_supported(metadata, f"{name}.{_TYPE}")
    if kind == "linear":
        return {"rope_type": kind, "factor": metadata.positive(f"{name}.{_FACTOR}")}
    original = metadata.integer(f"{name}.{_ORIGINAL}", least=1)
    found: dict[str, Any] = {"rope_type": kind, "original_max_position_embeddings": original}
    attention = metadata.positive(f"{name}.{_ATTENTION}", 1.0)
    if kind == "longrope":
        return found | {"attention_factor": shortest(attention)}
    found["factor"] = metadata.positive(f"{name}.{_FACTOR}")
    return found | ({"attention_factor": attention * _magnitude(found["factor"])} if attention != 1 else {})


def _not_supported(metadata: Metadata, key: str) -> ModelError:
    return metadata.refused(f"'{key}' is {metadata.shown(key)}, which is not supported")


def factor_tensors(allowed: tuple[str, ...]) -> frozenset[str]:
    """Returns the names of the tensors of factors that a file may have.

    Args:
        allowed: The types of rotary embedding that the architecture may have.
    """
    llama3 = {FACTORS} if "llama3" in allowed else set()
    return frozenset(llama3 | ({LONG_FACTORS, SHORT_FACTORS} if "longrope" in allowed else set()))


def rope_factors(rope: Mapping[str, Any], rotated: int) -> dict[str, np.ndarray[Any, Any]]:
    """Returns by what frequencies are divided, `[rotated / 2]`, by the names of the tensors that hold it.

    Args:
        rope: `rope_parameters` of a complete config.json.
        rotated: The dimensions of a head that are rotated.
    """
    import numpy as np

    if rope.get("rope_type") == "llama3":
        return {FACTORS: _llama3_factors(rope, rotated)}
    if rope.get("rope_type") == "longrope":
        pairs = ((LONG_FACTORS, "long_factor"), (SHORT_FACTORS, "short_factor"))
        return {name: np.array(rope[key], np.float32) for name, key in pairs}
    return {}


def _llama3_factors(rope: Mapping[str, Any], rotated: int) -> np.ndarray[Any, Any]:
    """Source: `_compute_llama3_parameters` of transformers."""
    import numpy as np

    turns = rope["original_max_position_embeddings"] / _waves(rope["rope_theta"], rotated)
    factor, low, high = (float(rope[key]) for key in ("factor", "low_freq_factor", "high_freq_factor"))
    smooth = (turns - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    found = np.where(turns > high, 1.0, np.where(turns < low, factor, between))
    return found.astype(np.float32)


def _waves(theta: float, rotated: int) -> np.ndarray[Any, Any]:
    """Returns how many positions each pair of dimensions takes to turn around once."""
    import numpy as np

    found: np.ndarray[Any, Any] = 2 * math.pi * float(theta) ** (np.arange(0, rotated, 2) / rotated)
    return found


def rope_from_factors(
    factors: Mapping[str, np.ndarray[Any, Any]], rope: Mapping[str, Any], original: int | None, where: str
) -> dict[str, Any]:
    """Returns the `rope_parameters` of which `rope_factors` gives these.

    Args:
        factors: The tensors, `[rotated / 2]`, by name.
        rope: What `rope_from_metadata` gave, and `rope_theta`.
        original: The original length of the context, where the file says it.
        where: The file, for the error.

    Raises:
        ModelError: They are of no model in use: a file does not say how they were made.
    """
    import numpy as np

    odd = next((name for name, tensor in factors.items() if not _are_factors(tensor)), None)
    kind = rope["rope_type"]
    if not odd and kind == "longrope" and factors.keys() == {LONG_FACTORS, SHORT_FACTORS}:
        pairs = (("long_factor", LONG_FACTORS), ("short_factor", SHORT_FACTORS))
        return {**rope, **{key: [*map(shortest, factors[name].tolist())] for key, name in pairs}}
    if not odd and kind == "default" and factors.keys() == {FACTORS}:
        for found in _tried_llama3(factors[FACTORS], rope, original):
            made = _llama3_factors(found, 2 * len(factors[FACTORS]))
            if np.allclose(made, factors[FACTORS], rtol=1e-5, atol=0):
                return found
    raise ModelError(
        f"its {odd or min(factors, default=LONG_FACTORS)!r} scales frequencies in a way that is not supported",
        where=where,
        hint=NOT_SUPPORTED,
    )


def _are_factors(tensor: np.ndarray[Any, Any]) -> bool:
    import numpy as np

    return bool(np.isfinite(tensor).all()) and bool((tensor > 0).all())


def _tried_llama3(
    factors: np.ndarray[Any, Any], rope: Mapping[str, Any], original: int | None
) -> Sequence[dict[str, Any]]:
    """Returns parameters that may have made factors: those of the models in use, and those that solve for these.

    Between the bounds the inverse of a factor is linear in how often its pair turns within the original context.
    """
    factor = shortest(float(factors.max()))
    same = {**rope, "rope_type": "llama3", "factor": factor}
    found = [
        {**same, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": length}
        for length in ([original] if original else [_LLAMA3_ORIGINAL, 4096, 16384, 32768])
    ]
    length = original or _LLAMA3_ORIGINAL
    turns = length / _waves(rope["rope_theta"], 2 * len(factors))
    between = (factors > 1 + 1e-6) & (factors < factor * (1 - 1e-6))
    if between.sum() > 1:
        smooth = (1 / factors[between].astype(float) - 1 / factor) / (1 - 1 / factor)
        first, last = turns[between][0], turns[between][-1]
        slope = (smooth[0] - smooth[-1]) / (first - last)
        if slope > 0:
            low, high = (float(f"{last + (bound - smooth[-1]) / slope:.4g}") for bound in (0.0, 1.0))
            bounds = {"low_freq_factor": low, "high_freq_factor": high}
            found.append({**same, **bounds, "original_max_position_embeddings": length})
    return found


def shortest(value: float) -> float:
    """Returns the shortest decimal with the same float32, such as 1e-05 for 9.9999997e-06."""
    for digits in range(1, 9):
        candidate = float(f"{value:.{digits}g}")
        if struct.pack("<f", candidate) == struct.pack("<f", value):
            return candidate
    return value
