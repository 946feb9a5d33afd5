"""Base models in a GGUF file: weights of any quantization, configuration and tokenizer in one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError
from graftkit.interfaces.model_source import TensorInfo
from graftkit.interfaces.references import local_path

from graftkit_gguf.fused import with_own_tensors
from graftkit_gguf.header import GgufHeader, is_gguf, read_header
from graftkit_gguf.reading import StoredWeight as FileWeight
from graftkit_gguf.reading import architecture_of_file, model_config, model_weights
from graftkit_gguf.tensor_types import READABLE_TYPES

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["GgufFile", "GgufSource"]


class GgufSource:
    """Opens GGUF files of the architectures of `families`."""

    def accepts(self, reference: str) -> bool:
        """Tells whether the reference ends in .gguf, or names a file that starts as GGUF files do."""
        if reference.lower().endswith(".gguf"):
            return True
        try:
            path = local_path(reference)
            return path.is_file() and is_gguf(path)
        except (ModelError, OSError):
            return False

    def open(self, reference: str) -> GgufFile:
        """Reads and checks the header; the weights stay on the disk.

        Raises:
            ModelError: The file is missing, truncated, malformed, or of an architecture, a variant of it or a
                tensor type that is not supported.
        """
        header = read_header(local_path(reference))
        header = with_own_tensors(header, architecture_of_file(header))
        config = model_config(header)
        weights = model_weights(header, config)
        _refuse_unreadable(header)
        return GgufFile(reference, header, config, weights)

    def open_tokenizer(self, reference: str) -> GgufTokenizerFile:
        """Reads and checks the header of a file whose tokenizer alone is wanted, whatever its architecture.

        Raises:
            ModelError: The file is missing, truncated or malformed.
        """
        return GgufTokenizerFile(reference, read_header(local_path(reference)))


@dataclass(frozen=True, slots=True)
class GgufTokenizerFile:
    """The tokenizer in a GGUF file.

    Attributes:
        reference: What was asked for.
        header: The file's header.
    """

    reference: str
    header: GgufHeader

    @property
    def tokenizer_backend(self) -> str:
        """The provider that reads a tokenizer.json."""
        return "huggingface"

    def save_tokenizer(self, folder: Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and, if there is one, chat_template.jinja.

        Raises:
            ModelError: The file has no tokenizer, or one whose text splitting is not supported.
        """
        from graftkit_gguf.tokenizer import save_tokenizer

        save_tokenizer(self.header, folder)


@dataclass(frozen=True, slots=True)
class GgufFile(GgufTokenizerFile):
    """A GGUF file whose header has been read and checked, of a model that can be used.

    Attributes:
        config: The configuration, with the keys of a `config.json`.
        weights: Every weight by its `transformers` name.
    """

    config: Mapping[str, Any]
    weights: Mapping[str, FileWeight]

    @property
    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self.header.path,)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Every weight's name, shape and stored type, such as "Q4_1"."""
        return {
            name: TensorInfo(weight.shape, weight.dtype, weight.nbytes, by_matrix=weight.by_matrix)
            for name, weight in self.weights.items()
        }

    @property
    def generation_config(self) -> Mapping[str, Any]:
        """The tokens that end an answer, as llama.cpp reads them: the ends of a text, of a turn and of a message."""
        rows = len(self.header.metadata.get("tokenizer.ggml.tokens", ()))  # type: ignore[arg-type]
        found = (self.header.metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("eos", "eot", "eom"))
        ends = sorted({id for id in found if isinstance(id, int) and not isinstance(id, bool) and 0 <= id < rows})
        return {"eos_token_id": ends} if ends else {}

    @property
    def license(self) -> str | None:
        """The license that the file names, or None."""
        found = self.header.metadata.get("general.license")
        return found if isinstance(found, str) else None

    def check_unchanged(self) -> None:
        """Makes sure that the file is still the one whose header was read.

        Raises:
            ModelError: It isn't, or is gone.
        """
        self.header.state.check(self.header.path)

    def read(self) -> Iterator[tuple[str, torch.Tensor | StoredWeight]]:
        """Yields each tensor by name, one in memory at a time: plain ones in their own type, the rest in blocks.

        Raises:
            ModelError: The file changed or can't be read, or a plain tensor holds values that are infinite or no
                numbers.
        """
        from graftkit_gguf.weights import read_weights

        return read_weights(self.header, self.weights)

    def tensor(self, name: str) -> torch.Tensor | StoredWeight:
        """Returns one tensor, as `read` yields it.

        Raises:
            ModelError: There is no tensor of this name, the file changed or can't be read, or the tensor holds values
                that are infinite or no numbers.
        """
        from graftkit_gguf.weights import read_weights

        if name not in self.weights:
            raise ModelError(f"there is no tensor '{name}'", where=self.reference, hint="`tensors` has their names.")
        [(_, tensor)] = read_weights(self.header, {name: self.weights[name]})
        return tensor


def _refuse_unreadable(header: GgufHeader) -> None:
    for tensor in header.tensors.values():
        if tensor.type.name not in READABLE_TYPES:
            raise ModelError(
                f"the tensor {tensor.name!r} is of the type {tensor.type.name}, which can't be read",
                where=str(header.path),
                hint="Quantize the model to another type, or give it as a Hugging Face folder. "
                f"Supported types: {', '.join(sorted(READABLE_TYPES))}.",
            )
