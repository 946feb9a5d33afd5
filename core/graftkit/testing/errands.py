"""What contracts have done in a fresh process: see `graftkit.testing.fresh`. Nothing here loads torch by itself."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

from graftkit._version import ENTRY_POINT_GROUP
from graftkit.flow.base_files.recreate import make_provider
from graftkit.host.host import PluginHost
from graftkit.interfaces.tokenizer import Tokenizer

__all__ = ["HEAVY", "list_plugin", "open_model", "start_rows", "tokenize", "tokenize_in_children"]

HEAVY = ("torch", "transformers", "bitsandbytes", "tokenizers")
"""What takes seconds to load, or belongs to one provider alone."""


def _loaded() -> list[str]:
    return [name for name in HEAVY if name in sys.modules]


def list_plugin(plugin: str, config: str) -> list[str]:
    """Registers a plugin and imports a provider's recipe fields; returns what heavy that loaded.

    Args:
        plugin: What the entry point names; empty to leave it out.
        config: The config model, as "package.module:Class"; empty for none.
    """
    if plugin:
        PluginHost(autoload=False, plugins=[EntryPoint("plugin", plugin, ENTRY_POINT_GROUP).load()], strict=True)
    if config:
        importlib.import_module(config.partition(":")[0])
    return _loaded()


def open_model(provider: Mapping[str, Any], reference: str) -> list[str]:
    """Opens a base model and asks for all that its headers say; returns what heavy that loaded."""
    files = make_provider("model-source", provider).open(reference)
    for name in ("reference", "files", "config", "tensors", "tokenizer_backend"):
        getattr(files, name)
    return _loaded()


def start_rows(provider: Mapping[str, Any], tokenizers: Mapping[str, Any]) -> list[list[list[float]]]:
    """Makes the rows of the tiny vocabularies that changed.

    Args:
        provider: The initializer.
        tokenizers: What loads the tiny tokenizers.
    """
    from graftkit.testing.contracts.vocabularies import TinyChange

    maker, backend = make_provider("initializer", provider), make_provider("tokenizer", tokenizers)
    changes = [TinyChange(backend, replaced=replaced) for replaced in (False, True)]
    return [maker.rows(change.rows()).tolist() for change in changes]


def tokenize(provider: Mapping[str, Any], folder: str, texts: Sequence[str]) -> dict[str, Any]:
    """Loads a tokenizer and encodes texts.

    Args:
        provider: The backend, as JSON.
        folder: Where the tokenizer lies.
        texts: The texts.
    """
    tokenizer = _load(provider, folder)
    return {"fingerprint": tokenizer.fingerprint, "ids": [tokenizer.encode(text) for text in texts], "heavy": _loaded()}


def tokenize_in_children(
    provider: Mapping[str, Any], folder: str, method: str, texts: Sequence[str]
) -> list[list[int]]:
    """Encodes texts here, then in two child processes, and returns the children's ids.

    Args:
        provider: The tokenizer's backend.
        folder: The tokenizer's files.
        method: How a child starts: "fork" or "spawn".
        texts: What to encode.
    """
    tokenizer = _load(provider, folder)
    tokenizer.encode_batch(list(texts))
    with multiprocessing.get_context(method).Pool(2) as pool:
        return pool.map(tokenizer.encode, list(texts))


def _load(provider: Mapping[str, Any], folder: str) -> Tokenizer:
    tokenizer: Tokenizer = make_provider("tokenizer", provider).load(Path(folder))
    return tokenizer
