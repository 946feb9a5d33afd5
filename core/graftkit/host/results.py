"""What a provider's method gives, looked at where it is called: whoever gave it is named, not whoever used it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.articles import with_article
from graftkit.interfaces.kinds import Kind

if TYPE_CHECKING:
    from graftkit.interfaces.exporter import ProofRequest

__all__ = ["kind_named", "wrong_with"]


def wrong_with(kind: Kind, method: str, given: Sequence[Any], result: Any) -> str:
    """Returns what is wrong with what a provider's method gave, or "".

    Args:
        kind: The provider's kind.
        method: The method's name.
        given: What it was called with.
        result: What it returned.

    Example:
        >>> wrong_with("adapter", "peft_config", (), 3)
        'gave an int, not a mapping or None'
    """
    check = _CHECKS.get((kind, method))
    return check(given, result) if check else ""


def kind_named(value: object) -> str:
    """Returns what a value is called where another was due, such as "an int"."""
    return "None" if value is None else with_article(type(value).__name__)


def _attached(given: Sequence[Any], result: Any) -> str:
    from graftkit.interfaces.adapted_weight import AdaptedWeight

    return "" if isinstance(result, AdaptedWeight) else f"gave {kind_named(result)}, not an AdaptedWeight"


def _mapping(given: Sequence[Any], result: Any) -> str:
    return "" if isinstance(result, Mapping) else f"gave {kind_named(result)}, not a mapping"


def _mapping_or_none(given: Sequence[Any], result: Any) -> str:
    return "" if result is None or isinstance(result, Mapping) else f"gave {kind_named(result)}, not a mapping or None"


def _quantized(given: Sequence[Any], result: Any) -> str:
    from graftkit.interfaces.frozen_weight import FrozenWeight

    if not isinstance(result, FrozenWeight):
        return f"gave {kind_named(result)}, not a FrozenWeight"
    due, found = list(given[0].shape), [result.out_features, result.in_features]
    return "" if found == due else f"gave a weight of the shape {found} for one of {due}"


def _adopted(given: Sequence[Any], result: Any) -> str:
    return "" if result is None else _quantized(given, result)


def _text_or_none(given: Sequence[Any], result: Any) -> str:
    return "" if result is None or isinstance(result, str) else f"gave {kind_named(result)}, not a text or None"


def _texts(given: Sequence[Any], result: Any) -> str:
    texts = isinstance(result, list | tuple) and all(isinstance(text, str) for text in result)
    return "" if texts else f"gave {kind_named(result)}, not a list of texts"


def _exported(given: Sequence[Any], result: Any) -> str:
    folder = Path(given[-1])
    return _mapping(given, result) if folder.is_dir() else "has removed the folder that it was to write into"


def _logits(given: Sequence[Any], result: Any) -> str:
    import torch

    request: ProofRequest = given[0]
    if not isinstance(result, list | tuple):
        return f"gave {kind_named(result)}, not a list of tensors"
    if len(result) != len(request.probes):
        return f"gave {len(result)} tensors for {len(request.probes)} probes"
    for logits, probe in zip(result, request.probes, strict=True):
        if not isinstance(logits, torch.Tensor) or not logits.is_floating_point():
            told = f"a tensor of {logits.dtype}" if isinstance(logits, torch.Tensor) else kind_named(logits)
            return f"gave {told}, not a tensor of floating-point numbers"
        if logits.ndim != 2 or len(logits) != len(probe.positions):
            return f"gave logits of the shape {list(logits.shape)} for {len(probe.positions)} positions"
    return ""


_OF_ASSETS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("tokens", "stop_tokens", "added"), (list, tuple)),
    **dict.fromkeys(("generation", "roles", "config_roles"), (Mapping,)),
    "rendered": (str,),
}


def _assets(given: Sequence[Any], result: Any) -> str:
    from graftkit.interfaces.exporter import LoadedAssets

    if not isinstance(result, LoadedAssets):
        return f"gave {kind_named(result)}, not LoadedAssets"
    for name, kinds in _OF_ASSETS.items():
        part = getattr(result, name)
        if part is not None and not isinstance(part, kinds):
            return f"gave {kind_named(part)} as its {name}"
    for name in ("tokens", "added"):
        strange = next((ids for ids in getattr(result, name) or () if not isinstance(ids, list | tuple)), None)
        if strange is not None:
            return f"gave {kind_named(strange)} among its {name}, not a list of ids"
    return ""


_CHECKS: Mapping[tuple[Kind, str], Callable[[Sequence[Any], Any], str]] = {
    ("adapter", "attach"): _attached,
    ("adapter", "peft_config"): _mapping_or_none,
    ("adapter", "peft_tensors"): _mapping,
    ("quantizer", "quantize"): _quantized,
    ("quantizer", "adopt"): _adopted,
    ("exporter", "refusal"): _text_or_none,
    ("exporter", "notices"): _texts,
    ("exporter", "export"): _exported,
    ("exporter", "logits"): _logits,
    ("exporter", "assets"): _assets,
}
