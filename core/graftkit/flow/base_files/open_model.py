"""Opens a base model and its tokenizer."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftkit.errors import ModelError, ProviderError
from graftkit.flow.base_files.recreate import MakeProvider
from graftkit.host.host import PluginHost
from graftkit.host.records import RegisteredProvider
from graftkit.interfaces.architecture import text_settings
from graftkit.interfaces.counts import check_counts
from graftkit.interfaces.model_source import (
    BaseModelFiles,
    ModelSource,
    TokenizerFetcher,
    TokenizerFiles,
    TokenizerOpener,
)
from graftkit.interfaces.temporary import temporary_folder
from graftkit.interfaces.tokenizer import AddedTokens, Tokenizer, TokenizerBackend, bytes_of
from graftkit.recipe.document import RECIPE_SUFFIXES

__all__ = [
    "added_tokens",
    "check_fits",
    "embedding_rows",
    "fetch_tokenizer",
    "load_tokenizer",
    "open_model",
    "open_named_base",
    "open_tokenizer",
]

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")


def open_model(
    host: PluginHost, reference: str, use: str | None = None, where: str = ""
) -> tuple[RegisteredProvider, BaseModelFiles]:
    """Finds the source that opens a base model, and opens it.

    Built-in sources are asked first; a third party's is asked when none of them accepts the reference, or chosen
    with `model: {use: NAME, path: ...}`.

    Args:
        host: The plugins.
        reference: A folder, a file, or whatever a source accepts.
        use: The source to take; None to ask each.
        where: The recipe's key, for errors.

    Raises:
        ProviderError: No source accepts it, or several third parties' do.
        ModelError: The files can't be used, or the configuration is not that of the weights.
    """
    registered = host.registry.resolve("model-source", use, where=where) if use else _asked(host, reference, where)
    source: ModelSource = host.registry.create(registered)
    return registered, _opened(source, reference)


def _opened(source: ModelSource, reference: str) -> BaseModelFiles:
    """Opens a base model whose configuration is that of its weights."""
    files = source.open(reference)
    check_counts(files.config, files.tensors, files.reference)
    return files


def open_named_base(make: MakeProvider, source: Mapping[str, Any], reference: str) -> BaseModelFiles:
    """Opens the base model that a manifest names as the one that an adapter was trained on.

    Args:
        make: Makes the provider that the manifest names.
        source: What the manifest says of the model source.
        reference: What opens the model.

    Raises:
        ModelError: It can't be opened, or its configuration is not that of its weights.
    """
    opener: ModelSource = make("model-source", source)
    try:
        return _opened(opener, reference)
    except ModelError as error:
        message = f"the base model that it was trained on can't be opened: {error.where or reference}: {error.message}"
        raise ModelError(message, hint="Put that model back where it was.") from error


def fetch_tokenizer(host: PluginHost, reference: str, where: str = "") -> Path | None:
    """Fetches the tokenizer of a model that lies elsewhere, without its weights.

    Returns:
        The folder that it is in now, or None where there is nothing to fetch, or no way to do so without the weights.

    Raises:
        ProviderError: No source accepts the reference, or several third parties' do.
        ModelError: It can't be fetched.
    """
    source: ModelSource = host.registry.create(_asked(host, reference, where))
    return source.fetch_tokenizer(reference) if isinstance(source, TokenizerFetcher) else None


def open_tokenizer(host: PluginHost, reference: str, where: str = "") -> TokenizerFiles | None:
    """Opens the tokenizer of a model, whatever the model is; None where its source opens whole models only.

    Raises:
        ProviderError: No source accepts the reference, or several third parties' do.
        ModelError: It can't be opened.
    """
    source: ModelSource = host.registry.create(_asked(host, reference, where))
    return source.open_tokenizer(reference) if isinstance(source, TokenizerOpener) else None


def _asked(host: PluginHost, reference: str, where: str) -> RegisteredProvider:
    for group in host.registry.providers_in_turn("model-source"):
        accepting = [registered for registered in group if host.registry.create(registered).accepts(reference)]
        if len(accepting) > 1:
            names = " and ".join(f"'{registered.qualified_name}'" for registered in accepting)
            raise ProviderError(
                f"{names} could both open '{reference}'",
                where=where,
                hint="Say which: model: {use: NAME, path: ...}.",
            )
        if accepting:
            return accepting[0]
    raise ProviderError(f"no model source can open '{reference}'", where=where, hint=_no_model(reference))


_RECORDS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".arrow")
"""Suffixes of files that hold records, and never a model."""


def _no_model(reference: str) -> str:
    """Returns what to name in the place of what no source opens."""
    path = Path(reference)
    if path.suffix in RECIPE_SUFFIXES:
        run = Path("runs", path.stem)
        return (
            f"A recipe is no model: name the run that it made, such as {run}; `toolkit evaluate` takes it by --recipe."
        )
    if path.suffix in _RECORDS:
        measures = f"`toolkit evaluate MODEL --data {shlex.quote(reference)}` measures one by it"
        return f"A file of records is no model: {measures}."
    return "Name a model's folder, a .gguf file, package:NAME/FILE, or a hub's id."


def load_tokenizer(files: TokenizerFiles, backend: TokenizerBackend) -> Tokenizer:
    """Loads the tokenizer that came with a base model.

    Raises:
        ModelError: It is missing or malformed.
        StorageError: No temporary file can be written.
    """
    with temporary_folder() as folder:
        files.save_tokenizer(folder)
        try:
            return backend.load(folder)
        except ModelError as error:
            raise ModelError(error.message, where=files.reference, hint=error.hint) from error


def embedding_rows(files: BaseModelFiles) -> int | None:
    """Returns how many rows the model's embedding has: of its tensor, or else as the configuration says."""
    for name, info in files.tensors.items():
        if name.endswith(_EMBEDDINGS):
            return info.shape[0]
    rows = text_settings(files.config).get("vocab_size")
    return rows if isinstance(rows, int) else None


def added_tokens(tokenizer: Tokenizer) -> Mapping[str, int] | None:
    """Returns a tokenizer's added tokens and their ids, or None where it does not tell them."""
    found: object = tokenizer.added_tokens if isinstance(tokenizer, AddedTokens) else None
    return found if isinstance(found, Mapping) else None  # an attribute of this name may be anything


def check_fits(files: BaseModelFiles, tokenizer: Tokenizer, rows: int | None = None) -> list[str]:
    """Makes sure that every id that texts are cut into has a row.

    Added tokens may have none, as the one for images in the tokenizer of a model of text alone: a record that
    holds one is refused when it is encoded.

    Args:
        files: The base model.
        tokenizer: The tokenizer.
        rows: How many rows its embedding has or will have; as its files say when left out.

    Returns:
        What the user should know.

    Raises:
        ModelError: Tokens that are no added ones have no row in the embedding.
    """
    rows = embedding_rows(files) if rows is None else rows
    if rows is None or tokenizer.vocab_size <= rows:
        return []
    added = added_tokens(tokenizer)
    known = tokenizer.special_tokens if added is None else added
    beyond = {name: id for name, id in known.items() if id >= rows}
    if any(
        id not in beyond.values() and bytes_of(tokenizer, id) is not None for id in range(rows, tokenizer.vocab_size)
    ):
        raise ModelError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the model's embedding only {rows:,} rows",
            where=files.reference,
            hint="Tokenizer and weights do not belong together: take both from the same model.",
        )
    names = ", ".join(f"{name!r}" for name in list(beyond)[:5]) + (" and others" if len(beyond) > 5 else "")
    count = f"{len(beyond)} added token{'s' if len(beyond) > 1 else ''}"
    return [f"the model's embedding has {rows:,} rows, none for {count}: {names}"] if beyond else []
