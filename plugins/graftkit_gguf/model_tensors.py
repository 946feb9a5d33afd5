"""A model's tensors as a GGUF file has them: names, order of rows, types; those of the base's own file bit for bit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from graftkit.errors import ModelError
from graftkit.interfaces.references import local_path

from graftkit_gguf.architectures import complete_config
from graftkit_gguf.families import architecture_of
from graftkit_gguf.file_writer import StoredTensor
from graftkit_gguf.fused import with_own_tensors
from graftkit_gguf.header import GgufHeader, is_gguf, read_header
from graftkit_gguf.parts import EMBEDDING, OUTPUT
from graftkit_gguf.quantize import quantize_rows
from graftkit_gguf.reading import architecture_of_file
from graftkit_gguf.stored_types import StoredTypes
from graftkit_gguf.weights import read_bytes, read_numbers

__all__ = ["BaseTensors", "Kept", "stored_tensors"]


@dataclass(frozen=True, slots=True)
class BaseTensors:
    """The tensors of the base model's own GGUF file.

    Attributes:
        header: The file's header, in which queries, keys and values have tensors of their own.
    """

    header: GgufHeader

    @classmethod
    def open(cls, reference: str) -> BaseTensors | None:
        """Opens a base model's file; None where it is no GGUF file.

        Args:
            reference: What the recipe calls the model.

        Raises:
            ModelError: It is a GGUF file, and damaged.
        """
        try:
            path = local_path(reference)
            if not is_gguf(path):
                return None
        except (ModelError, OSError, ValueError):
            return None
        header = read_header(path)
        return cls(with_own_tensors(header, architecture_of_file(header)))

    @property
    def types(self) -> dict[str, str]:
        """The type of each matrix by its name in the file, in lower case."""
        return {name: tensor.type.name.lower() for name, tensor in self.header.tensors.items() if len(tensor.shape) > 1}

    def same(self, name: str, values: torch.Tensor) -> StoredTensor | None:
        """Returns the file's own tensor where its numbers are these, every one of them.

        Args:
            name: Its name in the file.
            values: float32.

        Raises:
            ModelError: The file was changed meanwhile.
        """
        tensor = self.header.tensors.get(name)
        if tensor is None or tensor.shape[::-1] != tuple(values.shape):
            return None
        flat, at = values.reshape(-1), 0
        for numbers in read_numbers(self.header, tensor):
            if not torch.equal(numbers, flat[at : at + len(numbers)]):
                return None
            at += len(numbers)
        return name, tuple(values.shape), tensor.type.name.lower(), read_bytes(self.header, tensor)


@dataclass
class Kept:
    """Takes the base model's own tensors where nothing changed, and counts them.

    Attributes:
        base: The base model's file; None to take none.
        count: How many were taken.
    """

    base: BaseTensors | None = None
    count: int = 0

    def same(self, name: str, values: torch.Tensor) -> StoredTensor | None:
        """Returns the file's own tensor, as `BaseTensors.same`."""
        found = self.base.same(name, values) if self.base else None
        self.count += found is not None
        return found


def stored_tensors(
    config: Mapping[str, Any],
    tensors: Iterable[tuple[str, torch.Tensor]],
    types: StoredTypes,
    kept: Kept | None = None,
) -> Iterator[StoredTensor]:
    """Yields a model's tensors as a GGUF file has them.

    Args:
        config: The keys of its config.json.
        tensors: Its tensors by transformers' names, float32; `lm_head.weight` is left out where it is the embedding.
        types: How they are stored.
        kept: Takes the tensors of the base model's own file where the numbers are the same.

    Raises:
        ModelError: The architecture has no place for one, or the base's file was changed meanwhile.
    """
    architecture = architecture_of(config)
    for stored_name, values in _in_the_file(config, tensors):
        own = kept.same(stored_name, values) if kept else None
        yield own or _stored(stored_name, values, types.type_of(stored_name, tuple(values.shape)))
    for stored_name, factors in architecture.factors(complete_config(config)).items():
        yield _stored(stored_name, torch.from_numpy(factors), "f32")


def _in_the_file(
    config: Mapping[str, Any], tensors: Iterable[tuple[str, torch.Tensor]]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yields names and values in the file; an embedding that is the output layer, too, twice where that has to be."""
    architecture = architecture_of(config)
    tied = bool(complete_config(config)["tie_word_embeddings"])
    for name, tensor in tensors:
        if (tied and name == "lm_head.weight") or name.startswith(architecture.needless):
            continue
        for stored_name, values in architecture.tensors(name, tensor, config):
            yield stored_name, values
            if stored_name == EMBEDDING and tied and not architecture.ties:
                yield OUTPUT, values


def _stored(name: str, values: torch.Tensor, type_: str) -> StoredTensor:
    rows = values.reshape(-1, values.shape[-1])
    return name, tuple(values.shape), type_, quantize_rows(rows, type_).reshape(-1).numpy()
