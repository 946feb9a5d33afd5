"""What a tokenizer that another plugin made saves: the same tokenizer, in few files, none of which is a model's."""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path

from graftkit.errors import Cancelled, RequestError
from graftkit.flow.folders.export_manifest import EXPORT_MANIFEST
from graftkit.flow.folders.refused_files import drop_foreign_code, refuse_bad_files, refuse_bad_tokenizers
from graftkit.flow.folders.vocabulary_file import VOCABULARY
from graftkit.host.guard import brief, is_watched, wrong_result
from graftkit.interfaces.temporary import temporary_folder
from graftkit.interfaces.tokenizer import Tokenizer, TokenizerBackend
from graftkit.report.model_card import CARD

__all__ = ["check_saved", "check_saved_files"]

_OF_MODELS = (
    *("config.json", "generation_config.json", "*processor_config.json", "pytorch_model*", "model_index.json"),
    *("adapter_config.json", "adapter_model*", "*.safetensors", "*.safetensors.index.json", "*.gguf"),
    *(EXPORT_MANIFEST, VOCABULARY, CARD.lower()),
)
"""What else lies in the folders that a tokenizer is saved into; upper and lower case are one on some systems."""

_MOST_ENTRIES = 1_000
_MOST_BYTES = 512 << 20
"""Bytes of all files that a tokenizer is saved in; the largest in use have 70 million."""


def check_saved(tokenizer: Tokenizer, backend: TokenizerBackend) -> None:
    """Saves a tokenizer that another plugin made, and makes sure that its backend reads the same one again.

    Runs and exports keep what it saves: whoever reads that, or writes beside it, would be blamed for it.

    Args:
        tokenizer: The tokenizer.
        backend: The backend that reads what it saves.

    Raises:
        PluginCallError: It saves something else, or what no export may hold.
    """
    if not is_watched(tokenizer):
        return
    with temporary_folder() as place:
        folder = place / "tokenizer"
        folder.mkdir()
        tokenizer.save(folder)
        outside = [path.name for path in place.iterdir() if path != folder]
        if outside:
            told = f"has written {outside[0]!r:.80} outside of the folder that it was given"
            raise wrong_result(tokenizer, "save", told)
        check_saved_files(tokenizer, folder)
        try:
            again = backend.load(folder)
        except Cancelled:
            raise
        except Exception as error:
            raise _wrong(tokenizer, "can't be loaded again", error, folder) from error
        for what in ("fingerprint", "chat_template"):
            if getattr(again, what) != getattr(tokenizer, what):
                named = what.replace("_", " ")
                raise wrong_result(tokenizer, "save", f"has written a tokenizer with another {named} than its own")
        try:
            drop_foreign_code(folder)  # as for an export
            refuse_bad_files(folder)
            refuse_bad_tokenizers(folder)
        except RequestError as error:
            raise _wrong(tokenizer, "no export may hold", error, folder) from error


def _wrong(tokenizer: Tokenizer, what: str, error: Exception, folder: Path) -> Exception:
    told = brief(error).replace(f"{folder}{os.sep}", "").replace(f"{folder}: ", "")
    return wrong_result(tokenizer, "save", f"has written what {what}: {told}")


def check_saved_files(tokenizer: Tokenizer, folder: Path) -> None:
    """Looks at the names, the number and the sizes of the files that a tokenizer of another plugin's has saved.

    Args:
        tokenizer: The tokenizer.
        folder: What it was saved into, which holds nothing else.

    Raises:
        PluginCallError: They are too many or too large, or one would lie where a model has a file of its own.
    """
    if not is_watched(tokenizer):
        return
    for path in folder.iterdir():
        if any(fnmatchcase(path.name.lower(), name) for name in _OF_MODELS):
            told = f"has written {path.name}, and models, adapters and exports have a file of their own of that name"
            raise wrong_result(tokenizer, "save", told)
    size = 0
    for count, path in enumerate(folder.rglob("*"), 1):
        size += path.stat().st_size if path.is_file() else 0
        if count > _MOST_ENTRIES:
            told = f"has written over {_MOST_ENTRIES:,} files and folders, where as many are most"
            raise wrong_result(tokenizer, "save", told)
    if size > _MOST_BYTES:
        told = f"has written {size:,} bytes, where {_MOST_BYTES:,} are most"
        raise wrong_result(tokenizer, "save", told)
