"""Judges a request from the recipe and the files alone: before a folder is made, before torch is imported."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from graftkit.corpus.encode import Encoder, chat_template_of
from graftkit.corpus.rows import ChatRow, Row, TextRow, read_rows
from graftkit.corpus.split import Split, exclude, split
from graftkit.errors import DataError, ModelError, ProviderError, RecipeError
from graftkit.host.host import PluginHost
from graftkit.host.records import Offer
from graftkit.host.registry import BUILT_IN
from graftkit.interfaces.model_source import BaseModelFiles, ModelSource
from graftkit.interfaces.tokenizer import Tokenizer, TokenizerBackend
from graftkit.model.targets import linear_layers, match_targets
from graftkit.recipe.bind import BoundRecipe, bind
from graftkit.recipe.load import LoadedRecipe

__all__ = ["Request", "judge", "load_tokenizer", "open_model", "row_counts"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request that holds as far as can be told without loading anything.

    Attributes:
        bound: The recipe with every name resolved.
        source: The model source that opens the base model.
        files: The opened base model.
        backend: The tokenizer backend.
        tokenizer: The base model's tokenizer.
        encoder: Turns rows into tokens.
        targets: The layers that are adapted, in the model's order.
        rows: The rows to learn from and the held-out ones.
        notices: What the user should know.
    """

    bound: BoundRecipe
    source: Offer
    files: BaseModelFiles
    backend: Offer
    tokenizer: Tokenizer
    encoder: Encoder
    targets: list[str]
    rows: Split
    notices: list[str]


def judge(loaded: LoadedRecipe, host: PluginHost) -> Request:
    """Judges a request.

    Raises:
        RequestError: Something in it is wrong; see `graftkit.errors` for the kinds.
    """
    bound = bind(loaded, host)
    recipe = bound.recipe
    where = bound.document.where
    source, files = open_model(host, recipe.model.path, recipe.model.use, where(("model",)))
    targets = match_targets(recipe.adapter.targets, list(linear_layers(files.tensors)), where(("adapter", "targets")))
    backend = host.registry.resolve("tokenizer", files.tokenizer_backend)
    tokenizer = load_tokenizer(files, host.registry.create(backend))
    _check_rows_of_embeddings(files, tokenizer)
    rows = _read(bound)
    encoder = Encoder(tokenizer, chat_template_of(tokenizer, _template(bound)), _row_length(bound, files))
    _check_template(encoder, rows)
    return Request(bound, source, files, backend, tokenizer, encoder, targets, rows, _notices(bound, rows))


def open_model(
    host: PluginHost, reference: str, use: str | None = None, where: str = ""
) -> tuple[Offer, BaseModelFiles]:
    """Finds the source that opens a base model, and opens it.

    Built-in sources are asked first; a third party's is asked when none of them accepts the reference, or chosen
    with `model: {use: NAME, path: ...}`.

    Raises:
        ProviderError: No source accepts it, or several third parties' do.
        ModelError: The files can't be used.
    """
    offer = host.registry.resolve("model-source", use, where=where) if use else _asked(host, reference, where)
    source: ModelSource = host.registry.create(offer)
    return offer, source.open(reference)


def _asked(host: PluginHost, reference: str, where: str) -> Offer:
    offers = host.registry.offers("model-source")
    built_in = [offer for offer in offers if offer.plugin.distribution == BUILT_IN]
    for group in (built_in, [offer for offer in offers if offer not in built_in]):
        accepting = [offer for offer in group if host.registry.create(offer).accepts(reference)]
        if len(accepting) > 1:
            names = " and ".join(f"'{offer.qualified_name}'" for offer in accepting)
            raise ProviderError(
                f"{names} could both open '{reference}'",
                where=where,
                hint="Say which: model: {use: NAME, path: ...}.",
            )
        if accepting:
            return accepting[0]
    raise ProviderError(f"no model source can open '{reference}'", where=where)


def load_tokenizer(files: BaseModelFiles, backend: TokenizerBackend) -> Tokenizer:
    """Loads the tokenizer that came with a base model.

    Raises:
        ModelError: It is missing or malformed.
    """
    with tempfile.TemporaryDirectory(prefix="graftkit-") as folder:
        files.save_tokenizer(Path(folder))
        try:
            return backend.load(Path(folder))
        except ModelError as error:
            raise ModelError(error.message, where=files.reference, hint=error.hint) from error


def _check_rows_of_embeddings(files: BaseModelFiles, tokenizer: Tokenizer) -> None:
    rows = files.config.get("vocab_size")
    for name, info in files.tensors.items():
        if name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")):
            rows = info.shape[0]
    if isinstance(rows, int) and tokenizer.vocab_size > rows:
        raise ModelError(
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the model's embedding only {rows:,} rows",
            where=files.reference,
            hint="Tokenizer and weights do not belong together: take both from the same model.",
        )


def _row_length(bound: BoundRecipe, files: BaseModelFiles) -> int:
    """Returns how many tokens a row may have: what the recipe says, within the model's context.

    Raises:
        RecipeError: The recipe asks for more than the model's context.
    """
    context = files.config.get("max_position_embeddings")
    asked = bound.recipe.data.max_length
    if not isinstance(context, int) or context < 1:
        return bound.recipe.max_length
    if asked is not None and asked > context:
        raise RecipeError(
            f"data.max_length is {asked}; the model's context is {context} tokens",
            where=bound.document.where(("data", "max_length")),
        )
    return min(bound.recipe.max_length, context)


def _template(bound: BoundRecipe) -> str | None:
    path = bound.recipe.data.chat_template
    if path is None:
        return None
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        where = bound.document.where(("data", "chat_template"))
        raise DataError(f"the chat template {path} can't be read: {reason}", where=where) from None


def _read(bound: BoundRecipe) -> Split:
    data = bound.recipe.data
    rows = [row for path in data.train for row in read_rows(Path(path))]
    if isinstance(data.holdout, str):
        found = exclude(rows, read_rows(Path(data.holdout)))
    else:
        found = split(rows, data.holdout, bound.recipe.training.seed)
    if not found.train:
        raise DataError("every row is held out: there is nothing to learn from", where=data.train[0])
    return found


def _check_template(encoder: Encoder, rows: Split) -> None:
    """Finds out at the first conversation, not in the middle, that there is no template."""
    for row in (*rows.train, *rows.holdout):
        if isinstance(row, ChatRow):
            encoder.encode(row)
            return


def _notices(bound: BoundRecipe, rows: Split) -> list[str]:
    notices = []
    if rows.repeated:
        notices.append(f"{rows.repeated} rows are also held out; training does not see them")
    if not rows.holdout:
        notices.append("no row is held out: nothing will say whether the model got better")
    wanted = bound.recipe.evaluation.exact_match
    answers = sum(not isinstance(row, TextRow) for row in rows.holdout)
    if wanted > answers:
        notices.append(f"evaluation.exact_match asks for {wanted} answers; {answers} held-out rows have one")
    return notices


def row_counts(rows: Sequence[Row]) -> dict[str, int]:
    """Counts rows by their shape."""
    counts: dict[str, int] = {}
    for row in rows:
        kind = type(row).__name__.removesuffix("Row").lower()
        counts[kind] = counts.get(kind, 0) + 1
    return counts
