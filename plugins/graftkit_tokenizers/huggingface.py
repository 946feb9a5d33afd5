"""The backend of tokenizer.json files, and of formats that convert to one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from graftkit.errors import ModelError, RequestError
from graftkit.interfaces.tokenizer import Tokenizer
from graftkit.interfaces.vocabulary import ExtensionPlan, ExtensionSpec
from graftkit.tokenization.bounds import MAX_FILE
from graftkit.tokenization.side_files import SIDE_FILES, additional_templates, read_files

from graftkit_tokenizers.extend.extend import extend
from graftkit_tokenizers.formats.convert import FILES, is_there, read
from graftkit_tokenizers.formats.files import Options
from graftkit_tokenizers.tokenizer_json.tokenizer import HuggingFaceTokenizer

__all__ = ["HuggingFaceBackend", "HuggingFaceTokenizer"]

_FILES = ("tokenizer.json", *SIDE_FILES)


class HuggingFaceBackend:
    """Reads a tokenizer.json, or files that convert to one.

    Attributes:
        formats: The formats that it reads and its tokenizers save, the default first.
        model_type: The type that a tokenizer.json's model must have; empty for any.
        options: Settings that a format's files may lack.
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
            ModelError: The files are missing or malformed, or their model has another type than `model_type`.
        """
        folder = _folder_of(path) or path
        files = read_files(folder, (*_FILES, *additional_templates(folder)), MAX_FILE)
        converted = None if "tokenizer.json" in files else read(path, self.formats, self.options)
        if converted is None and "tokenizer.json" not in files:
            others = ", ".join(file for format in self.formats for file in FILES.get(format, ()))
            raise ModelError(
                "there is no tokenizer.json", where=str(folder), hint=f"Also read: {others or 'nothing else'}."
            )
        spec = converted.spec if converted else None
        files = converted.files if converted else files
        tokenizer = HuggingFaceTokenizer(files, str(folder), trainable=hasattr(self, "train"), spec=spec)
        if self.model_type not in ("", tokenizer.model_type):
            raise ModelError(
                f"this is a {tokenizer.model_type} tokenizer, not {self.model_type}",
                where=str(folder),
                hint="Use the backend 'huggingface', which reads any.",
            )
        return tokenizer

    def extend(self, tokenizer: Tokenizer, texts: Iterable[str], spec: ExtensionSpec) -> ExtensionPlan:
        """Adds tokens; see `graftkit_tokenizers.extend.extend.extend`. All ids of the base stay.

        Raises:
            RequestError: The tokenizer is another backend's, or there is nothing to add or to learn.
        """
        if not isinstance(tokenizer, HuggingFaceTokenizer):
            raise RequestError(f"{type(tokenizer).__name__} is no tokenizer.json, so it can't be extended as one")
        return extend(tokenizer, texts, spec)


def _folder_of(path: Path) -> Path | None:
    """Returns the folder of a tokenizer.json, given the folder or the file; None where there is none."""
    folder = path.parent if path.name == "tokenizer.json" else path
    return folder if (folder / "tokenizer.json").is_file() else None
