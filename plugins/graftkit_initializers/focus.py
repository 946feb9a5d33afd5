"""FOCUS: a new token starts as a mixture of kept tokens that are used as it is.

Dobler & de Melo, 2023, https://arxiv.org/abs/2305.14481. The auxiliary space, which is fastText's there, is made of
the corpus's own counts here: see `neighbours`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from graftkit import NewRows

from graftkit_initializers.config import FocusConfig
from graftkit_initializers.neighbours import token_vectors
from graftkit_initializers.parts import combine_parts, even_shares
from graftkit_initializers.sparsemax import sparsemax

__all__ = ["Focus"]

_AT_ONCE = 256
"""New tokens compared with all kept ones at a time: bounds the memory."""


class Focus:
    """Mixes kept tokens' rows by how alike they are used in the corpus, most of them with weight zero.

    It is made for a tokenizer that replaces another. A token that the corpus shows too rarely starts as the mean of
    its parts, and all do where there is no corpus or no kept token in it.
    """

    def __init__(self, config: FocusConfig | None = None) -> None:
        self._config = config or FocusConfig()

    def rows(self, new: NewRows) -> torch.Tensor:
        """Returns the mixtures, `[new, hidden]`."""
        rows = combine_parts(new, even_shares)
        place, vectors = self._vectors(new)
        kept = [id for id in sorted(new.kept) if id in place]
        seen = torch.tensor([n for n, id in enumerate(new.ids) if id in place], dtype=torch.long)
        if not kept or not len(seen):
            return rows
        anchors = vectors[[place[id] for id in kept]]
        sources = new.weight.detach()[[new.kept[id] for id in kept]]
        for some in torch.split(seen, _AT_ONCE):
            likeness = vectors[[place[new.ids[n]] for n in some.tolist()]] @ anchors.T
            rows[some] = sparsemax(likeness) @ sources
        return rows

    def _vectors(self, new: NewRows) -> tuple[dict[int, int], torch.Tensor]:
        """Returns a vector for each token that is used, `[tokens, dimensions]`, and each id's place among them."""
        ids, vectors = token_vectors(
            _sequences(new, self._config.corpus_tokens),
            window=self._config.window,
            dimensions=self._config.dimensions,
            min_count=self._config.min_count,
        )
        return {id: place for place, id in enumerate(ids.tolist())}, torch.from_numpy(vectors)


def _sequences(new: NewRows, limit: int) -> Iterator[Sequence[int]]:
    """Yields the corpus as the new tokenizer cuts it, up to so many tokens."""
    for text in new.texts:
        ids = new.tokenizer.encode(text)[:limit]
        limit -= len(ids)
        yield ids
        if not limit:
            return
