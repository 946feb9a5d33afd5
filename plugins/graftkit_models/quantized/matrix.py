"""What the formats have in common: a folder's tensors by name, what config.json says, and the matrices that both make.

Nothing here needs torch: a folder is judged by its headers and by the few bytes that say how a matrix is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftkit.errors import ModelError

from graftkit_models.safetensors_header import StoredTensor

if TYPE_CHECKING:
    import torch
    from graftkit import StoredWeight

__all__ = ["FileTensors", "QuantizedMatrix", "Settings"]

_MOST_BYTES = 4096
"""The largest tensor that is read when a folder is opened: a few settings as JSON."""


@dataclass(frozen=True, slots=True)
class QuantizedMatrix:
    """A matrix, or a stack of them, and what it is made of.

    Attributes:
        kind: The format's name: `StoredWeight.kind`.
        shape: As in the architecture.
        parts: The file's tensors by their part in the format; the first is read first.
        nbytes: The bytes of what `store` gives.
        store: Makes the stored weight of the tensors, by part. It raises ValueError where their numbers are none that
            the format allows.
        by_matrix: Whether it is a stack that gives each of its matrices: `TensorInfo.by_matrix`.
    """

    kind: str
    shape: tuple[int, ...]
    parts: Mapping[str, str]
    nbytes: int
    store: Callable[[Mapping[str, torch.Tensor]], StoredWeight]
    by_matrix: bool = False


@dataclass(frozen=True, slots=True)
class FileTensors:
    """The tensors of a folder.

    Attributes:
        headers: Each tensor's shape, type and place.
        places: The file that each lies in.
    """

    headers: Mapping[str, StoredTensor]
    places: Mapping[str, Path]

    def __contains__(self, name: object) -> bool:
        return name in self.headers

    def __iter__(self) -> Iterator[str]:
        return iter(self.headers)

    def layers(self, part: str) -> Iterator[str]:
        """Yields the path of each layer that has a tensor of this name, such as "qweight"."""
        yield from (name.removesuffix(f".{part}") for name in self.headers if name.endswith(f".{part}"))

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape."""
        return self.headers[name].shape

    def nbytes(self, name: str) -> int:
        """Returns the bytes that a tensor takes."""
        return self.headers[name].end - self.headers[name].start

    def check(self, name: str, types: str, shape: tuple[int, ...] | None = None) -> None:
        """Compares a tensor with what its format says of it.

        Args:
            name: The tensor.
            types: The types that it may have, separated by blanks.
            shape: The shape that it must have; any where left out.

        Raises:
            ModelError: There is none, or it is of another type or shape.
        """
        if name not in self.headers:
            raise ModelError(f"there is no tensor '{name}', without which its weight means nothing", where=self._where)
        found = self.headers[name]
        if found.dtype not in types.split() or 0 in found.shape or (shape is not None and found.shape != shape):
            wanted = f"{' or '.join(types.split())}{f' {list(shape)}' if shape is not None else ''}"
            raise ModelError(
                f"tensor '{name}' is {found.dtype} {list(found.shape)}; its format has {wanted} there",
                where=str(self.places[name]),
                hint="The weights and config.json do not belong together, or this variant of the format is not known: "
                "give the unquantized model.",
            )

    def read(self, name: str) -> bytes:
        """Returns the bytes of a small tensor.

        Raises:
            ModelError: It is too large to be one, or can't be read.
        """
        found, path = self.headers[name], self.places[name]
        if found.end - found.start > _MOST_BYTES:
            raise ModelError(f"tensor '{name}' is far larger than its format has it", where=str(path))
        try:
            with path.open("rb") as file:
                file.seek(found.start)
                return file.read(found.end - found.start)
        except OSError as error:
            raise ModelError(f"can't be read: {error.strerror}", where=str(path)) from error

    @property
    def _where(self) -> str:
        return str(next(iter(self.places.values())).parent)


@dataclass(frozen=True, slots=True)
class Settings:
    """The part of a config.json that says how weights are quantized.

    Attributes:
        key: Where it stands in the configuration: "quantization_config".
        values: What it says.
        where: The configuration's path.
        config: The whole configuration.
    """

    key: str
    values: Mapping[str, Any]
    where: str
    config: Mapping[str, Any] = field(default_factory=dict)

    def refused(self, what: str) -> ModelError:
        """Returns the error of a variant that is not known."""
        return ModelError(
            f"{self.key}: {what}",
            where=self.where,
            hint="Give the unquantized model that it was made of; `quantizer:` in the recipe stores it in fewer bits.",
        )

    def choose(self, name: str, known: tuple[Any, ...], default: Any = None) -> Any:
        """Returns a setting that must be one of those that are known.

        Raises:
            ModelError: It is another.
        """
        found = self.values.get(name)
        found = default if found is None else found
        if found not in known or isinstance(found, bool) != isinstance(known[known.index(found)], bool):
            listed = ", ".join(repr(value) for value in known)
            raise self.refused(f"{name} is {str(found)[:60]!r}; known: {listed}")
        return known[known.index(found)]  # which of 4.0 is 4

    def size(self, name: str, default: int | None = None) -> int:
        """Returns a setting that is a whole number above 0, or -1 for all.

        Raises:
            ModelError: It is none.
        """
        found = self.values.get(name, default)
        if type(found) is not int or not (found == -1 or 0 < found < 1 << 31):
            raise self.refused(f"{name} is {str(found)[:60]!r}, which is no size")
        return found

    def without(self, *names: str) -> None:
        """Makes sure that settings are not used which change what the tensors mean.

        Raises:
            ModelError: One is.
        """
        for name in names:
            if self.values.get(name):
                raise self.refused(f"{name} is set, which is not known here")
