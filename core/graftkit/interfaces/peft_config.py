"""Judges a stranger's adapter_config.json before peft builds what it asks for.

peft makes an adapter's tensors by the numbers and names of adapter_config.json, and compares them with those of
adapter_model.safetensors only afterwards. So the numbers are compared with the stored tensors' shapes first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ExportError
from graftkit.interfaces.json_file import read_json_object
from graftkit.interfaces.patterns import takes_forever

__all__ = ["LAYER_METHODS", "check_adapter_config", "read_adapter_config", "stored_shapes"]

LAYER_METHODS = frozenset(
    [
        "ADALORA",
        "BOFT",
        "C3A",
        "DELORA",
        "FOURIERFT",
        "GRALORA",
        "HIRA",
        "HRA",
        "IA3",
        "LN_TUNING",
        "LOHA",
        "LOKR",
        "LORA",
        "MISS",
        "OFT",
        "POLY",
        "RANDLORA",
        "ROAD",
        "SHIRA",
        "TRAINABLE_TOKENS",
        "VBLORA",
        "VERA",
        "WAVEFT",
    ]
)
"""PEFT's methods that add tensors of adapter_model.safetensors to layers. Others open models, tokenizers or pickles
that adapter_config.json names, such as MULTITASK_PROMPT_TUNING, SHADOW, XLORA (peft 0.21, `tuners/*/model.py`)."""

_NO_SIZES = frozenset(
    [
        *("alpha", "alpha_pattern", "delora_lambda", "lambda_pattern", "lora_alpha", "randlora_alpha"),
        *("projection_prng_key", "random_loc_seed", "random_seed", "rng_seed"),
        *("deltaT", "tfinal", "tinit", "total_step"),
        *("alora_invocation_tokens", "token_indices", "trainable_token_indices"),
    ]
)
"""Whole numbers by which peft makes nothing: factors, seeds, steps of a training, ids of tokens."""

_MAX_CONFIG = 16 << 20
"""The largest configuration that is read: token indices are the longest part of one."""

_MOST_PATTERNS = 4_000
"""A rank and a factor of its own for each of a large model's layers."""

_MOST_LETTERS = 100_000
"""Of all patterns together that are more than a path."""

_PLAIN = re.compile(r"[\w.\\^$-]*")

_SMALLEST_LIMIT = 64
"""peft's defaults, such as 64 for ROAD's `group_size`, are allowed whatever the stored tensors' sizes are."""

_STEPS = re.compile(r"_niter_(\d{1,18})")
"""How `init_lora_weights` says how many iterations of a singular value decomposition peft does: "pissa_niter_16"."""


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Reads an adapter's configuration.

    Raises:
        ExportError: It can't be read, or is no JSON object.
    """
    return read_json_object(folder / "adapter_config.json", _MAX_CONFIG, ExportError)


def stored_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shape of each of an adapter's tensors, by its name.

    Raises:
        ExportError: There is no file of them.
    """
    from safetensors import safe_open

    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        raise ExportError(f"there is no {path.name}", where=str(folder))
    with safe_open(path, framework="pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - it is no dict


def check_adapter_config(folder: Path) -> None:
    """Refuses what peft would open elsewhere, compare with names forever, or build larger than what is stored.

    Raises:
        ExportError: The configuration names a method that opens other files, finds layers by a regular expression that
            could take forever, repeats the base model's layers, or has a number or a list that no stored tensor
            explains.
    """
    path, config = folder / "adapter_config.json", read_adapter_config(folder)
    method = config.get("peft_type")
    if not isinstance(method, str) or method not in LAYER_METHODS:
        raise ExportError(
            f"its peft_type is {str(method)[:60]!r}, for which peft may open files outside of the folder",
            where=str(path),
            hint="Adapters of layers are read, such as those of the type LORA; others are peft's alone.",
        )
    _check_sizes(path, config, stored_shapes(folder))
    patterns = list(_patterns(config))
    if len(patterns) > _MOST_PATTERNS:
        raise ExportError(f"it has {len(patterns):,} patterns; {_MOST_PATTERNS:,} are read at most", where=str(path))
    if sum(len(pattern) for pattern in patterns if not _PLAIN.fullmatch(pattern)) > _MOST_LETTERS:
        raise ExportError(f"its patterns have more than {_MOST_LETTERS:,} characters", where=str(path))
    for pattern in patterns:
        if len(pattern) > 10_000 or (not _PLAIN.fullmatch(pattern) and takes_forever(pattern)):
            raise ExportError(
                f"a pattern of its adapter_config.json could take forever: {pattern[:200]}", where=str(folder)
            )
    if config.get("layer_replication"):
        raise ExportError(
            "its 'layer_replication' has peft build the base model's layers several times, which no adapter that "
            "graftkit trains is made for",
            where=str(path),
        )


def _patterns(config: Mapping[str, Any]) -> Iterator[str]:
    owners = config.get("layers_pattern")
    found = [config.get(key) for key in ("target_modules", "exclude_modules")]
    found += owners if isinstance(owners, list) else [owners]
    found += [key for name in ("rank_pattern", "alpha_pattern") for key in _keys(config.get(name))]
    yield from (pattern for pattern in found if isinstance(pattern, str))


def _keys(value: Any) -> Iterable[str]:
    return value if isinstance(value, dict) else ()


def _check_sizes(path: Path, config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Compares each whole number and each length of the configuration with what is stored."""
    sizes = [size for shape in shapes.values() if 0 not in shape for size in shape]
    largest = max(_SMALLEST_LIMIT, len(shapes), *sizes)
    for key, value in config.items():
        too_large = next((number for number in _numbers(value, key in _NO_SIZES) if number > largest), None)
        if too_large is not None:
            raise ExportError(
                f"its '{key}' asks for {too_large:,}, where its {len(shapes):,} tensors have up to {largest:,} rows or "
                "columns: it is not what those tensors were made with",
                where=str(path),
                hint="Export it again, or take the export from where it came from.",
            )


def _numbers(value: Any, only_lengths: bool) -> Iterator[int]:
    """Yields the length of each list and mapping in a value, and each whole number unless lengths alone count."""
    if isinstance(value, list | dict):
        yield len(value)
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _numbers(inner, only_lengths)
    elif isinstance(value, int) and not only_lengths:
        yield abs(value)
    elif isinstance(value, str) and (steps := _STEPS.search(value)):
        yield int(steps[1])
