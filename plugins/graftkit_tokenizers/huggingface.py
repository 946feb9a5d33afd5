"""The backend of every tokenizer.json, and of files that one can hold."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from graftkit.errors import ModelError, RequestError
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec
from graftkit.tokenization.side_files import SIDE_FILES

from graftkit_tokenizers.extend.extend import extend
from graftkit_tokenizers.formats.convert import FILES, is_there, read
from graftkit_tokenizers.formats.files import Options
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer

__all__ = ["HuggingFaceBackend", "HuggingFaceTokenizer"]

_FILES = ("tokenizer.json", *SIDE_FILES)


class HuggingFaceBackend:
    """Reads folders that hold a tokenizer.json, or the files of a library whose tokenizers one can hold.

    Attributes:
        formats: What it reads and its tokenizers write.
        model_type: What a tokenizer.json's model must be; empty: anything.
        options: What files may leave open.
    """

    formats: tuple[str, ...] = ("huggingface", "gpt2", "tiktoken", "wordpiece")
    model_type = ""
    options = Options()

    def accepts(self, path: Path) -> bool:
        """Tells whether there is a tokenizer.json, or files in another of the formats."""
        return _folder_of(path) is not None or is_there(path, self.formats)

    def load(self, path: Path) -> HuggingFaceTokenizer:
        """Reads a tokenizer from a folder, or from the one file that it consists of.

        Raises:
            ModelError: The files are missing or malformed, or hold another family's tokenizer.
        """
        folder = _folder_of(path) or path
        files = {name: (folder / name).read_bytes() for name in _FILES if (folder / name).is_file()}
        if "tokenizer.json" not in files:
            files = read(path, self.formats, self.options) or {}
        if not files:
            raise ModelError("there is no tokenizer.json", where=str(folder), hint=f"Read too: {self._others()}.")
        tokenizer = HuggingFaceTokenizer(files, str(folder), trainable=hasattr(self, "train"))
        if self.model_type not in ("", tokenizer.model_type):
            raise ModelError(
                f"this is a {tokenizer.model_type} tokenizer, not {self.model_type}",
                where=str(folder),
                hint="Use the backend 'huggingface', which reads any.",
            )
        return tokenizer

    def _others(self) -> str:
        return ", ".join(file for format in self.formats for file in FILES.get(format, ())) or "nothing else"

    def extend(self, tokenizer: Tokenizer, texts: Iterable[str], spec: ExtensionSpec) -> ExtensionPlan:
        """Adds tokens, in the way of the tokenizer's family; no id of the base moves.

        Raises:
            RequestError: It is no tokenizer.json, or there is nothing to add or to learn.
        """
        if not isinstance(tokenizer, HuggingFaceTokenizer):
            raise RequestError(f"{type(tokenizer).__name__} is no tokenizer.json, so it can't be extended as one")
        return extend(tokenizer, texts, spec)


def _folder_of(path: Path) -> Path | None:
    """Returns the folder of a tokenizer.json, given either."""
    folder = path.parent if path.name == "tokenizer.json" else path
    return folder if (folder / "tokenizer.json").is_file() else None
