"""What an adapter's folder says of the vocabulary: the tokenizer that lies in it, and its trained rows."""

from __future__ import annotations

from graftkit.errors import FolderError, ModelError
from graftkit.flow.base_files.find_tokenizer import FoundTokenizer, find_tokenizer
from graftkit.flow.base_files.open_model import check_fits
from graftkit.flow.base_files.recreate import InstalledProviders
from graftkit.flow.folders.adapter_folder import AdapterFolder
from graftkit.flow.folders.vocabulary_file import VOCABULARY, read_change
from graftkit.host.host import PluginHost
from graftkit.interfaces.model_source import BaseModelFiles
from graftkit.interfaces.tokenizer import Tokenizer, bytes_of
from graftkit.interfaces.vocabulary import VocabularyChange

__all__ = ["change_of_folder", "check_rows_fit", "first_moved_id", "tokenizer_beside", "told_of_tokenizer"]

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def tokenizer_beside(folder: AdapterFolder, host: PluginHost) -> FoundTokenizer | None:
    """Returns the tokenizer that lies in an adapter's folder, or None where none does.

    Args:
        folder: The adapter.
        host: The plugins.

    Raises:
        ModelError: It can't be read, or is another one than graftkit's manifest says.
        PluginError: No installed plugin reads it.
    """
    manifest, path = folder.manifest, folder.path
    if manifest is None:
        beside = any((path / name).is_file() for name in _TOKENIZER_FILES)
        return find_tokenizer(host, str(path)) if beside else None
    installed = InstalledProviders(host)
    own: Tokenizer = installed.make("tokenizer", manifest.tokenizer).load(path)
    if own.fingerprint != manifest.tokenizer_fingerprint:
        raise ModelError("the tokenizer beside the adapter is not the one that it was trained with", where=str(path))
    return FoundTokenizer(installed.registered("tokenizer", manifest.tokenizer), own, str(path))


def first_moved_id(base: Tokenizer, other: Tokenizer) -> str | None:
    """Says which id of a base model's tokenizer means something else in another one, or None where each is the same."""
    for id in range(base.vocab_size):
        before, after = bytes_of(base, id), bytes_of(other, id)
        if before is not None and before != after:
            return f"the id {id:,} is {before!r:.40} in the one and {after!r:.40} in the other"
    return None


def told_of_tokenizer(base: Tokenizer, other: Tokenizer, change: VocabularyChange | None) -> str:
    """Says what an adapter's tokenizer is beside its base model's, whose ids all mean the same in it.

    Args:
        base: The base model's.
        other: The adapter's, which is another one.
        change: What its rows make of the embeddings.
    """
    if other.vocab_size == base.vocab_size:
        return "the adapter's tokenizer is taken: it has the base model's tokens, and makes others of some texts"
    trained = change is not None and any(id >= base.vocab_size for id in change.ids)
    return f"the adapter's tokenizer adds tokens, with {'trained rows' if trained else 'rows that the base model has'}"


def change_of_folder(folder: AdapterFolder, rows: int | None) -> VocabularyChange | None:
    """Returns what an adapter's trained rows make of a base model's embeddings, or None where it has none.

    Args:
        folder: The adapter.
        rows: How many the base model's embedding has; None where nothing says.

    Raises:
        FolderError: Its file about that is damaged, or contradicts its rows, or ids lie beyond rows that nobody has.
    """
    said = read_change(folder.path) if folder.manifest else None
    if rows is None:
        return said
    counted = _change_of_rows(folder, rows) if folder.rows else None
    if said is None:
        return counted
    if counted is None or said.moves_ids or (said.size, said.ids) != (counted.size, counted.ids):
        raise FolderError(
            "it is damaged: it names other rows than those that the adapter has", where=str(folder.path / VOCABULARY)
        )
    return said


def _change_of_rows(folder: AdapterFolder, rows: int) -> VocabularyChange:
    """Returns what an adapter's trained rows make of the rows of the embeddings, those of each matrix among them.

    Args:
        folder: The adapter, which has such rows.
        rows: How many the base model's embedding has.

    Raises:
        FolderError: Ids lie beyond rows that nobody has.
    """
    ids = tuple(sorted({id for own in folder.rows.values() for id in own}))
    size = max(rows, ids[-1] + 1)
    if size - rows > sum(id >= rows for id in ids):
        raise FolderError(
            f"it has trained rows up to {ids[-1]:,}, of which the base model has {rows:,}, and not those between",
            where=str(folder.path),
            hint="Is this the base model that it was trained on? Name another with --base.",
        )
    return VocabularyChange("extended", size, ids, ((),) * len(ids))


def check_rows_fit(
    folder: AdapterFolder, files: BaseModelFiles, tokenizer: Tokenizer, change: VocabularyChange | None
) -> list[str]:
    """Makes sure that every id that texts are cut into has a row, of the base model's or of the adapter's.

    Args:
        folder: The adapter.
        files: The base model.
        tokenizer: The tokenizer that goes with the adapter.
        change: What its rows make of the embeddings.

    Returns:
        What the user should know.

    Raises:
        ModelError: A token has none.
    """
    try:
        return check_fits(files, tokenizer, change.size if change else None)
    except ModelError as error:
        if change is None:
            raise
        told = f"the tokenizer has {tokenizer.vocab_size:,} ids, the model with the adapter's rows {change.size:,}"
        raise ModelError(told, where=str(folder.path), hint=error.hint) from None
