"""Where a base model comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    import torch

    from graftkit.interfaces.stored_weight import StoredWeight

__all__ = [
    "INTEGERS",
    "PLAIN",
    "BaseModelFiles",
    "GenerationSettings",
    "LicensedModel",
    "ModelSource",
    "ProcessorSettings",
    "SentenceModules",
    "TensorInfo",
    "TokenizerFetcher",
    "TokenizerFiles",
    "TokenizerOpener",
    "WatchedModel",
]

INTEGERS = frozenset({"BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64"})
"""The stored types that are no weights: masks, positions, tables of ids."""


PLAIN = frozenset({"F64", "F32", "F16", "BF16"}) | INTEGERS
"""The stored types of single numbers; a tensor of any other is quantized in its file."""


_GIVEN_ITEMSIZE = {"F64": 4, "F32": 4, "F16": 2, "BF16": 2}
"""The bytes of a number as `read` gives it: double precision becomes float32."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor's shape and type as the file stores it ("F32", "BF16", "Q4_1", ...).

    Of a tensor that is read as a `StoredWeight` the type is that one's `kind`, and none of `PLAIN`: whether it can be
    used is found out by it, before anything is done.

    Attributes:
        shape: As in the architecture.
        dtype: As above.
        nbytes: Of a `StoredWeight`, the bytes of its tensors; None where that can't be told from the headers.
        by_matrix: Of a stack of matrices, whether it is a `StoredWeight` that gives each by itself
            (`StoredWeight.matrix`), all of them in as many bytes.
    """

    shape: tuple[int, ...]
    dtype: str
    nbytes: int | None = None
    by_matrix: bool = False

    @property
    def given_bytes(self) -> int | None:
        """The bytes that it takes as its source gives it; None where that can't be told from the headers."""
        size = _GIVEN_ITEMSIZE.get(self.dtype)
        return self.nbytes if size is None else size * prod(self.shape)


class TokenizerFiles(Protocol):
    """The tokenizer that came with a model."""

    @property
    def reference(self) -> str:
        """What the recipe said."""

    @property
    def tokenizer_backend(self) -> str:
        """The name of the tokenizer provider that reads what `save_tokenizer` writes."""

    def save_tokenizer(self, folder: Path) -> None:
        """Writes the tokenizer into an existing folder.

        Raises:
            ModelError: There is none, or it is of a kind that can't be read.
        """


class BaseModelFiles(TokenizerFiles, Protocol):
    """A base model whose headers have been read and checked; its weights are still on the disk.

    Names and shapes are those that `transformers` loads into the architecture, be they of today or of earlier days.
    """

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that hold weights and configuration; their hashes go into the run's manifest."""

    @property
    def config(self) -> Mapping[str, Any]:
        """The configuration, with the keys of a `config.json`."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every tensor's name, shape and stored type."""

    def read(self) -> Iterator[tuple[str, torch.Tensor | StoredWeight]]:
        """Yields each tensor by name, one in memory at a time, as float32, float16 or bfloat16 on the CPU.

        Tensors of `INTEGERS` are given as they are. A matrix that the file holds quantized may be a `StoredWeight`.

        Raises:
            ModelError: A tensor can't be read.
        """

    def tensor(self, name: str) -> torch.Tensor | StoredWeight:
        """Returns one tensor, bit for bit what `read` yields under its name.

        It takes the time and memory of this tensor, not of the model's others, and nothing of it is kept: core asks for
        the weights of one layer at a time, in any order and more than once.

        Args:
            name: One of `tensors`.

        Raises:
            ModelError: There is no tensor of this name, or it can't be read.
        """


@runtime_checkable
class GenerationSettings(Protocol):
    """What a base model's files may say besides: how answers are generated."""

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The settings, with the keys of a `generation_config.json`: stop tokens, sampling; empty without any."""


@runtime_checkable
class LicensedModel(Protocol):
    """What a base model's files may say besides: under which license it is given."""

    @property
    def license(self) -> str | None:
        """The license as the hub names it, such as "apache-2.0"; None where no file says so."""


@runtime_checkable
class ProcessorSettings(Protocol):
    """What a multimodal base model's files may say besides: how images and sound become its inputs."""

    @property
    def processors(self) -> Mapping[str, Mapping[str, Any]]:
        """The content of each such file by its name, such as `preprocessor_config.json`; empty without any."""


@runtime_checkable
class SentenceModules(Protocol):
    """What a base model's files may say besides: how sentence-transformers makes vectors of its hidden states."""

    @property
    def sentence_modules(self) -> Mapping[str, Mapping[str, Any]]:
        """The settings of each module that a text goes through, by its `type` of modules.json; empty without that file.

        Under "" stand those of config_sentence_transformers.json, where there is such a file. Those of the model
        itself, the `Transformer`, are of sentence_bert_config.json, with the tokenizer's `model_max_length`, be it
        None.
        """


@runtime_checkable
class WatchedModel(Protocol):
    """What a base model's files may offer besides: whether they are still those that were opened.

    `read` and `tensor` of such files refuse those that are not, too.
    """

    def check_unchanged(self) -> None:
        """Compares the files with what they were when they were opened; `FileStates` does.

        Raises:
            ModelError: One was changed or replaced, or is gone.
        """


class ModelSource(Protocol):
    """Opens base models of one form. Its module must import without torch."""

    def accepts(self, reference: str) -> bool:
        """Tells from the reference, and perhaps from a look at the disk, whether this source can open it."""

    def open(self, reference: str) -> BaseModelFiles:
        """Reads and checks the headers.

        Raises:
            ModelError: A file is missing, truncated, malformed or of an unsupported kind.
        """


@runtime_checkable
class TokenizerFetcher(Protocol):
    """What a model source that fetches models from elsewhere may offer besides: the tokenizer without the weights."""

    def fetch_tokenizer(self, reference: str) -> Path | None:
        """Fetches the tokenizer's files.

        Returns:
            The folder that they are in now, or None where the reference is nothing that has to be fetched.

        Raises:
            ModelError: They can't be fetched.
        """


@runtime_checkable
class TokenizerOpener(Protocol):
    """What a model source may offer besides: the tokenizer of a model whose weights it may not be able to use."""

    def open_tokenizer(self, reference: str) -> TokenizerFiles:
        """Reads what the tokenizer needs, and nothing about the model.

        Raises:
            ModelError: The file is missing, truncated or malformed.
        """
