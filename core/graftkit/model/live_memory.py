"""The peak memory of torch code, found by running it on tensors without storage.

Tensors of `torch._subclasses.FakeTensorMode` have a shape, a type and a device, and every operation on them gives the
shapes that the real one would. A mode above it follows each storage from its making to its end, as
`torch.distributed._tools.mem_tracker` does. So the run's own code, plugins included, tells what it needs, whatever the
architecture is. What a kernel takes for itself while it computes is not seen.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = ["MemoryMeter", "imagined", "really"]

_Found = Callable[[torch.Tensor], int]
_MAPPED = 32 << 20
"""Bytes beyond which glibc's malloc never takes a block from the heap (`DEFAULT_MMAP_THRESHOLD_MAX`)."""
_ATEN = torch.ops.aten
_DEPENDING_ON_CONTENTS = frozenset([_ATEN._local_scalar_dense.default, _ATEN.equal.default, _ATEN.nonzero.default])
_PRODUCTS = frozenset([_ATEN.mm.default, _ATEN.addmm.default, _ATEN.bmm.default, _ATEN.baddbmm.default])


class MemoryMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the storages that operations make, each under the label of the time at which it was made.

    Code that asks tensors without contents for a number gets an answer all the same: 1, or true, which is what checks
    for damage hope for; and where it asks which entries of a mask are set, the first of them.

    Args:
        ignored: Labels whose storages are not memory of the process, such as mapped files.
        set_entries: How many entries of a mask of several dimensions are set; all of them when left out.

    Attributes:
        peak: The most bytes that were held at once since `forget_peak`.
        at_peak: What was held then, by label.
        products: How often products of 16-bit matrices were made, by operation and shapes.
        mapped_at_peak: How much of that was in blocks so large that glibc's malloc maps each and gives it back.
    """

    def __init__(self, ignored: Iterable[str] = (), set_entries: _Found | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ignored = frozenset(ignored)
        self._set_entries = set_entries or (lambda mask: mask.numel())
        self._label = "working"
        self._storages: dict[int, tuple[int, str]] = {}
        self._live: Counter[str] = Counter()
        self._mapped: Counter[str] = Counter()
        self.mapped_at_peak: Mapping[str, int] = {}
        self.products: Counter[tuple[Any, ...]] = Counter()
        self.peak = 0
        self.at_peak: Mapping[str, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        if func in _PRODUCTS and given[-1].itemsize == 2:
            self.products[func, *(tensor.shape for tensor in given)] += 1
        if given and not any(isinstance(tensor, FakeTensor) or tensor.is_meta for tensor in given):
            with really():  # what has contents keeps them: indices and masks, by which code decides
                found = func(*args, **(kwargs or {}))
        elif func in _DEPENDING_ON_CONTENTS:
            found = self._answer(func, args)
        else:
            found = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(found):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        return found

    def _answer(self, func: Any, args: tuple[Any, ...]) -> Any:
        """Returns what stands for a result that depends on contents."""
        if func is _ATEN._local_scalar_dense.default:
            return True if args[0].dtype == torch.bool else 1
        if func is _ATEN.equal.default:
            return True
        return self._entries(args[0])

    def _entries(self, mask: torch.Tensor) -> torch.Tensor:
        """Returns indices `[entries, dimensions]`: all of a row, as numbers that code may loop over; of more, some."""
        if mask.ndim == 1:
            with really():
                return torch.arange(len(mask)).unsqueeze(1)
        return torch.empty(self._set_entries(mask), mask.ndim, dtype=torch.int64, device=mask.device)

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._storages or tensor.device.type == "meta":
            return
        size = storage.nbytes()
        self._storages[key] = (size, self._label)
        weakref.finalize(storage, self._gone, key)
        if self._label not in self._ignored:
            self._add(self._label, size, size)
            self._compare()

    def _gone(self, key: int) -> None:
        size, label = self._storages.pop(key)
        self._add(label, size, -size)

    def _add(self, label: str, size: int, change: int) -> None:
        self._live[label] += change
        if size > _MAPPED:
            self._mapped[label] += change

    def _compare(self) -> None:
        total = self.live
        if total > self.peak:
            self.peak, self.at_peak, self.mapped_at_peak = total, dict(+self._live), dict(+self._mapped)

    @property
    def live(self) -> int:
        """The bytes that are held now."""
        return sum(size for label, size in self._live.items() if label not in self._ignored)

    @contextmanager
    def labelled(self, label: str) -> Iterator[None]:
        """Puts a label on what is made for a while."""
        former, self._label = self._label, label
        try:
            yield
        finally:
            self._label = former

    def relabel(self, tensors: Iterable[torch.Tensor], label: str) -> None:
        """Puts another label on the storages of some tensors."""
        for tensor in tensors:
            key = tensor.untyped_storage()._cdata
            if key in self._storages:
                size, former = self._storages[key]
                self._add(former, size, -size)
                self._add(label, size, size)
                self._storages[key] = (size, label)

    def forget_peak(self) -> None:
        """Begins to look for the peak anew."""
        self.peak, self.at_peak, self.mapped_at_peak = self.live, dict(+self._live), dict(+self._mapped)


@contextmanager
def imagined(ignored: Iterable[str] = (), set_entries: _Found | None = None) -> Iterator[MemoryMeter]:
    """Has torch compute without contents for a while, and meters it.

    Args:
        ignored: As for `MemoryMeter`.
        set_entries: As for `MemoryMeter`.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), MemoryMeter(ignored, set_entries) as meter:
        yield meter


@contextmanager
def really() -> Iterator[None]:
    """Has torch compute with contents within `imagined`, as masks and indices need them."""
    with unset_fake_temporarily():
        yield
