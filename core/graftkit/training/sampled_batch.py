"""Sampled answers that several steps learn from, and how a checkpoint keeps them between these."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
import torch

from graftkit.errors import TrainingError
from graftkit.interfaces.scores import ADVANTAGE, MEAN_TOKENS
from graftkit.store.token_store import TokenStore
from graftkit.training.step_loss import OLD, StepScore

__all__ = ["SampledBatch"]

_ABOUT, _BY_TOKEN, _BY_EXAMPLE = "about", "by_token.", "by_example."
_ARRAYS = {"ids": np.uint32, "loss_weight": np.float32, "offsets": np.int64, "prompt_lengths": np.int64}
"""What the examples of a store are made of again, and the type of each."""


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """The answers to a step's prompts.

    Attributes:
        store: Those that are learnt from, with all that the loss needs of each token.
        count: How many there are together with the others.
        score: What they are worth.
    """

    store: TokenStore
    count: int
    score: StepScore

    def state(self) -> dict[str, torch.Tensor]:
        """Returns it as tensors."""
        about = json.dumps({"count": self.count, "score": asdict(self.score)}).encode()
        found = {_ABOUT: torch.frombuffer(bytearray(about), dtype=torch.uint8)}
        if len(self.store):
            found |= {name: _tensor(getattr(self.store, name)) for name in _ARRAYS}
            found |= {f"{_BY_TOKEN}{name}": _tensor(values) for name, values in self.store.by_token.items()}
            found |= {f"{_BY_EXAMPLE}{name}": _tensor(values) for name, values in self.store.by_example.items()}
        return found

    @classmethod
    def from_state(cls, state: Mapping[str, torch.Tensor], rows: int) -> SampledBatch:
        """Makes it of what `state` gave.

        Args:
            state: The tensors.
            rows: The embedding's: each token id is less.

        Raises:
            TrainingError: It is something else.
        """
        try:
            about = json.loads(state[_ABOUT].cpu().numpy().tobytes())
            arrays = {name: values.cpu().numpy() for name, values in state.items() if name != _ABOUT}
            store = (
                TokenStore.of([])
                if not arrays
                else TokenStore.from_arrays(
                    **{name: arrays[name].astype(kind) for name, kind in _ARRAYS.items()},
                    by_token=_columns(arrays, _BY_TOKEN),
                    by_example=_columns(arrays, _BY_EXAMPLE),
                )
            )
            ends = [*store.offsets[:1], *store.offsets[-1:]] == [0, len(store.ids)] and (store.lengths > 0).all()
            whole = ends and {ADVANTAGE, MEAN_TOKENS} <= store.by_example.keys() and OLD in store.by_token
            known = (store.ids < rows).all() and (store.prompt_lengths <= store.lengths).all()
            if type(about["count"]) is not int or (arrays and not (whole and known)):
                raise ValueError("a part of what the loss needs is missing or damaged")
            return cls(store, about["count"], StepScore(**about["score"]))
        except (IndexError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise TrainingError(
                "the checkpoint has not the sampled answers from which the next step learns, too",
                hint="Delete this checkpoint: the run goes on from the one before it.",
            ) from error


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(values.astype(np.int64) if values.dtype == np.uint32 else values.copy())


def _columns(arrays: Mapping[str, np.ndarray], start: str) -> dict[str, np.ndarray]:
    return {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}
