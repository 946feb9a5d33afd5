"""The loss of vectors of sequences, of which all those of a step are compared with one another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn
from torch.nn.functional import normalize

from graftkit.interfaces.objective import EmbeddingObjective, Overall, SimilarityObjective
from graftkit.interfaces.scores import Embeddings, VectorPairs
from graftkit.model.head import embeddings
from graftkit.model.packing import forward_inputs
from graftkit.store.token_store import TYPE, Example, TokenStore
from graftkit.training.batch import PackedBatch
from graftkit.training.step_loss import OnePass, OnPass, Passes, ScoreSums, StepCalls, StepScore, by_example

__all__ = ["Compared", "Documents", "EmbeddingLoss", "Pairs"]

_MOST_COMPARED = 1 << 22
"""Pairs of a query and a document that are compared in one call: each takes tens of bytes."""


class EmbeddingLoss:
    """The mean of the losses that an objective gives examples, by the vectors of all that are given at once.

    Vectors are first computed without a gradient. That of the loss by each vector is then run back through a second
    pass over its sequence, with the same dropout (GradCache, Gao et al., 2021, https://arxiv.org/abs/2101.06983). The
    last pass is computed once: what its gradient needs is kept while nothing else of the kind is.

    Args:
        network: A transformers model without a head, whose configuration says how hidden states are pooled.
        objective: The objective.
        passes: How examples are cut into passes.
        compared: What an objective is given of examples and of the vector of each of their sequences, of the length 1,
            `[sequences, hidden]`.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: EmbeddingObjective | SimilarityObjective,
        passes: Passes,
        compared: Callable[[Sequence[Example], torch.Tensor], Compared],
    ) -> None:
        self._network, self._passes, self._compared = network, passes, compared
        self._objective: Any = objective

    def backward(
        self,
        store: TokenStore,
        groups: Sequence[Sequence[int]],
        calls: StepCalls,
    ) -> StepScore:
        """Computes the vectors of all groups, asks the objective, and runs the gradient back."""
        own = self._passes.own(store, groups)
        examples, passes = self._passes.read(store, groups, range(len(groups)), own)
        last = next((each for each in reversed(passes) if each.own), None)  # whose graph is the one that is kept
        runs: list[torch.Tensor | None] = []
        for each in passes:
            if each.own:
                calls.begin(each.group, each.place)
            with torch.set_grad_enabled(each is last):
                runs.append(self._vectors(each.batch) if each.own else None)
        vectors = self._of_all(passes, runs).requires_grad_()
        given = self._compared(examples, normalize(vectors, dim=1)).given(range(len(examples)))
        losses = self._objective.losses(given)
        with torch.no_grad():
            metrics = self._objective.metrics(given)
        (by_vector,) = torch.autograd.grad(losses.mean(), vectors)
        gradients = torch.split(by_vector, [len(each.batch.sequences) for each in passes])
        mine = [found for found in zip(passes, runs, gradients, strict=True) if found[0].own]
        for done, (each, run, gradient) in enumerate([*mine[-1:], *mine[:-1]]):
            if done:
                calls.on_pass(done, len(mine))
                calls.begin(each.group, each.place)  # so that dropout leaves the same numbers out
                run = self._vectors(each.batch)
            assert run is not None
            run.backward(gradient)  # type: ignore[no-untyped-call]
        total = ScoreSums()
        total.add(losses.detach(), metrics, [each.batch for each in passes])
        return total.score()

    @torch.no_grad()
    def evaluate(self, store: TokenStore, groups: Sequence[Sequence[int]], poll: OnPass) -> StepScore:
        """Computes the vectors of all groups, and asks the objective of some examples at a time where it may."""
        own = self._passes.own(store, groups)
        examples, passes = self._passes.read(store, groups, range(len(groups)), own)
        every, done = sum(each.own for each in passes), 0
        runs: list[torch.Tensor | None] = []
        for each in passes:
            if each.own:
                poll(done, every)
                done += 1
            runs.append(self._vectors(each.batch) if each.own else None)
        compared = self._compared(examples, normalize(self._of_all(passes, runs), dim=1))
        total, found, batches = ScoreSums(), list[float](), [each.batch for each in passes]
        kept: dict[str, list[torch.Tensor]] = {}
        for rows in compared.parts():
            poll(done, every)
            given = compared.given(rows)
            losses = self._objective.losses(given)
            total.add(losses, self._objective.metrics(given), batches)
            found += losses.tolist()
            batches = []
            for name, values in self._kept(given).items():
                kept.setdefault(name, []).append(values)
        score = total.score()
        return replace(score, losses=found, metrics={**score.metrics, **self._overall(kept)})

    def _kept(self, given: Embeddings | VectorPairs) -> dict[str, torch.Tensor]:
        """Returns what an objective that tells something of all examples together keeps of some, as it gets it back."""
        if not isinstance(self._objective, Overall):
            return {}
        kept = self._objective.kept(given)
        return {name: (each.double() if each.is_floating_point() else each.long()) for name, each in kept.items()}

    def _overall(self, kept: dict[str, list[torch.Tensor]]) -> dict[str, float]:
        if not isinstance(self._objective, Overall) or not kept:
            return {}
        told = self._objective.overall({name: torch.cat(parts) for name, parts in kept.items()})
        return {name: value for name, value in told.items() if not math.isnan(value)}

    def _vectors(self, batch: PackedBatch) -> torch.Tensor:
        """Returns the vector of each sequence of a pass, `[sequences, hidden]`."""
        inputs = forward_inputs(batch.sequences, packed=self._passes.packed, token_type_ids=batch.by_token.get(TYPE))
        return embeddings(self._network, batch.sequences, inputs)

    def _of_all(self, passes: Sequence[OnePass], runs: Sequence[torch.Tensor | None]) -> torch.Tensor:
        """Returns the vectors of all passes, without a gradient; what other processes have computed is fetched."""
        width = next((len(run[0]) for run in runs if run is not None), 0)  # none where this process has no pass
        if self._passes.processes.count > 1:
            width = max(self._passes.processes.gather(width))
        found = [
            torch.zeros(len(each.batch.sequences), width, device=self._passes.device) if run is None else run.detach()
            for each, run in zip(passes, runs, strict=True)
        ]
        every = torch.cat(found)
        if self._passes.processes.count > 1:
            self._passes.processes.sum_(every)
        return every


class Compared(Protocol):
    """Vectors that an objective compares with one another."""

    def parts(self) -> list[range]:
        """Returns the numbers of the examples, so many at a time as an objective is asked of in one call."""

    def given(self, rows: range) -> Embeddings | VectorPairs:
        """Returns what an objective is given of some examples."""


class _Texts:
    """Which texts the sequences of some examples are: sequences of the same tokens are the same text.

    Args:
        examples: The examples; the first sequence of each is a query, the second its document, the others negatives.

    Attributes:
        queries: The numbers of the sequences that are queries, `[examples]`.
        documents: The numbers of the others, `[documents]`.
        positive: Which of these each query's own document is, `[examples]`.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self.queries, self.documents, self.positive = list[int](), list[int](), list[int]()
        self._asked: list[bytes] = []
        self._right: dict[bytes, dict[bytes, None]] = {}
        places: dict[bytes, list[int]] = {}
        sequence = count()
        for example in examples:
            query, *documents = (part.ids.tobytes() for part in example.sequences)
            self.queries.append(next(sequence))
            self.positive.append(len(self.documents))
            self._asked.append(query)
            self._right.setdefault(query, {query: None})[documents[0]] = None
            for text in documents:
                places.setdefault(text, []).append(len(self.documents))
                self.documents.append(next(sequence))
        self._places = {text: np.array(numbers) for text, numbers in places.items()}

    def compared(self, queries: range) -> torch.Tensor:
        """Returns which documents count for some queries, as `Embeddings.compared` has it, `[queries, documents]`."""
        found = np.ones((len(queries), len(self.documents)), np.bool_)
        for row, number in zip(found, queries, strict=True):
            for text in self._right[self._asked[number]]:
                if text in self._places:
                    row[self._places[text]] = False
            row[self.positive[number]] = True
        return torch.from_numpy(found)


class Documents:
    """Queries, each of which is compared with the documents of all examples.

    Args:
        examples: The examples; each has a query, its document, and negatives.
        vectors: The vector of each of their sequences, of the length 1, `[sequences, hidden]`.
    """

    def __init__(self, examples: Sequence[Example], vectors: torch.Tensor) -> None:
        self._texts = _Texts(examples)
        self._queries, self._documents = vectors[self._texts.queries], vectors[self._texts.documents]

    def parts(self) -> list[range]:
        """Returns the queries, so many at a time as are compared with all documents in one call."""
        size = max(1, _MOST_COMPARED // len(self._documents))
        return [range(at, min(at + size, len(self._queries))) for at in range(0, len(self._queries), size)]

    def given(self, rows: range) -> Embeddings:
        """Returns some queries, and all documents."""
        device = self._queries.device
        return Embeddings(
            self._queries[rows.start : rows.stop],
            self._documents,
            torch.tensor(self._texts.positive[rows.start : rows.stop], device=device),
            self._texts.compared(rows).to(device),
        )


class Pairs:
    """The two texts of each example, which has a number.

    Args:
        examples: The examples; each has two texts.
        vectors: As of `Documents`.
    """

    def __init__(self, examples: Sequence[Example], vectors: torch.Tensor) -> None:
        self._pairs = VectorPairs(vectors[0::2], vectors[1::2], by_example(examples, vectors.device))

    def parts(self) -> list[range]:
        """Returns all examples at once."""
        return [range(len(self._pairs.first))]

    def given(self, rows: range) -> VectorPairs:
        """Returns all of them."""
        return self._pairs
