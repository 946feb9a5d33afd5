"""Shows the inputs of layers to an observer, while a model computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from graftkit.interfaces.observing import InputObserver

__all__ = ["InputHooks"]


class InputHooks:
    """Hooks on layers that give their inputs at chosen positions to an observer.

    Layers that are given one and the same tensor one after the other, as the projections of attention are, share it:
    the first of them is observed.

    Args:
        network: The model.
        paths: The dotted paths of the layers.
        observer: What sees the inputs.

    Attributes:
        shared: Layers whose inputs are another's, with the path of that one.
    """

    def __init__(self, network: nn.Module, paths: Sequence[str], observer: InputObserver) -> None:
        self.shared: dict[str, str] = {}
        self._layers = {path: network.get_submodule(path) for path in paths}
        self._observer = observer
        self._positions = torch.empty(0)
        self._tokens = 0
        self._last: tuple[str, Any] = ("", None)

    @contextmanager
    def watching(self, positions: torch.Tensor, tokens: int) -> Iterator[None]:
        """Observes the passes that are made meanwhile.

        Args:
            positions: The positions whose inputs are given, `[positions]`.
            tokens: How many positions a pass has; inputs of another number are given as they are.
        """
        self._positions, self._tokens = positions, tokens
        handles = [layer.register_forward_pre_hook(self._hook(path)) for path, layer in self._layers.items()]
        try:
            yield
        finally:
            self._last = ("", None)
            for handle in handles:
                handle.remove()

    def _hook(self, path: str) -> Any:
        def hook(module: nn.Module, given: tuple[Any, ...]) -> None:
            x = given[0]
            if x is self._last[1]:
                self.shared[path] = self._last[0]
                return
            self._last = (path, x)
            rows = x.detach().reshape(-1, x.shape[-1])
            chosen = rows[self._positions] if len(rows) == self._tokens else rows
            self._observer.observe(path, chosen.float())

        return hook
