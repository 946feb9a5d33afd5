"""What sentence-transformers writes beside a model, or an adapter, of how its hidden states become vectors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import GraftkitError
from graftkit.interfaces.bounded_json import parse_json
from graftkit.interfaces.json_file import read_json_object, special_float
from graftkit.interfaces.regular_file import read_regular

__all__ = [
    "POOLING_KEYS",
    "SENTENCE_SETTINGS",
    "TRANSFORMER_SETTINGS",
    "has_sentence_files",
    "pooling_modes",
    "sentence_modules_in",
]

SENTENCE_SETTINGS = "config_sentence_transformers.json"
"""The file of what holds for all modules, such as prompts."""

TRANSFORMER_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""The file of what becomes of texts before the model sees them, such as where they are cut: the first one that says
anything. All versions write the first name; the others are of early ones."""

POOLING_KEYS: Mapping[str, str] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
"""What says by itself, true or false, whether vectors are made so: all versions read that, those before 6 write it."""

_MODULES = "modules.json"
_MOST_MODULES = 64
_MOST_BYTES = 4 << 20


def has_sentence_files(folder: Path) -> bool:
    """Tells whether a folder has a list of modules.

    Args:
        folder: The folder.
    """
    return _is_file(folder / _MODULES)


def sentence_modules_in(folder: Path, error: type[GraftkitError]) -> Mapping[str, Mapping[str, Any]]:
    """Returns the settings of each module by its type, and under "" those for all; empty without a list of modules.

    A type that is listed again has its number in the list behind it. Those of the model itself have what its
    tokenizer_config.json says as `model_max_length`, too, be it None; another folder's have not.

    Args:
        folder: The folder.
        error: What is raised where the files say something else.

    Raises:
        GraftkitError: `error`: one of its files is no JSON of the kind that it is to be.
    """
    path = folder / _MODULES
    if not has_sentence_files(folder):
        return {}
    try:
        found = [(str(one["type"]), str(one["path"])) for one in parse_json(read_regular(path, _MOST_BYTES))]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as reason:
        raise error(f"it is no list of modules, each with a type and a path: {reason}", where=str(path)) from None
    if len(found) > _MOST_MODULES:
        raise error(f"it lists {len(found):,} modules; at most {_MOST_MODULES} are read", where=str(path))
    kinds = [kind for kind, _ in found]
    modules = {
        f"{kind} ({number})" if kind in kinds[: number - 1] else kind: _settings_of(folder, module, error)
        for number, (kind, module) in enumerate(found, 1)
    }
    said = folder / SENTENCE_SETTINGS
    return {**modules, **({"": _read(said, error)} if _is_file(said) else {})}


def pooling_modes(settings: Mapping[str, Any]) -> list[object]:
    """Returns what a module of pooling makes vectors of, by sentence-transformers' names; none where it says nothing.

    Args:
        settings: The module's.
    """
    said = settings.get("pooling_mode") or [mode for key, mode in POOLING_KEYS.items() if settings.get(key)]
    return said if isinstance(said, list) else [said]


def _settings_of(folder: Path, module: str, error: type[GraftkitError]) -> Mapping[str, Any]:
    """Returns the config.json of a module that has a folder of its own, and the settings of one that has not."""
    if module == "":  # the model itself
        said = (_read(path, error) for name in TRANSFORMER_SETTINGS if _is_file(path := folder / name))
        tokenizer = folder / "tokenizer_config.json"
        cut = (_read(tokenizer, error) if _is_file(tokenizer) else {}).get("model_max_length")
        return {**next(filter(None, said), {}), "model_max_length": cut}
    path = folder / module / "config.json"
    own = module not in ("", ".", "..") and "/" not in module and "\\" not in module
    return _read(path, error) if own and _is_file(path) else {}


def _read(path: Path, error: type[GraftkitError]) -> dict[str, Any]:
    return read_json_object(path, _MOST_BYTES, error, object_hook=special_float)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False
