"""FOCUS mixes the rows of kept tokens that are used as the new one is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from graftkit_initializers.config import FocusConfig
from graftkit_initializers.focus import Focus
from graftkit_initializers.mean import Mean
from graftkit_initializers.neighbours import token_vectors
from graftkit_initializers.sparsemax import sparsemax

# 20 is used as 0 and 1 are; 21 occurs, but rarely; 22 never does.
TEXTS = [f"{a} {verb} {b}" for verb in (7, 8) for a in (0, 1, 20) for b in (3, 4, 5)] * 2 + ["21 7 3"]
PARTS = [(9, 10), (11,), (12, 13)]
CONFIG = FocusConfig(window=2, dimensions=8, min_count=2)


def test_a_new_token_is_the_mixture_of_those_used_alike(new_rows: Any) -> None:
    new = new_rows(PARTS, texts=TEXTS)
    sequences = [[int(word) for word in text.split()] for text in TEXTS]
    ids, vectors = token_vectors(sequences, window=2, dimensions=8, min_count=2)
    places = {id: place for place, id in enumerate(ids.tolist())}
    kept = [id for id in places if id < 20]
    likeness = torch.tensor([[float(vectors[places[20]] @ vectors[places[id]]) for id in kept]])
    weights = sparsemax(likeness)[0]
    expected = sum(weight * new.weight[id] for weight, id in zip(weights, kept, strict=True))
    rows = Focus(CONFIG).rows(new)
    torch.testing.assert_close(rows[0], expected)
    assert {kept[place] for place in weights.topk(2).indices.tolist()} == {0, 1}


def test_rare_and_unseen_tokens_start_as_the_mean_of_their_parts(new_rows: Any) -> None:
    new = new_rows(PARTS, texts=TEXTS)
    rows, means = Focus(CONFIG).rows(new), Mean().rows(new)
    assert torch.equal(rows[1:], means[1:]) and not torch.allclose(rows[0], means[0])
    for less in (replace(new, texts=()), replace(new, kept={}), replace(new, kept={15: 15})):
        assert torch.equal(Focus(CONFIG).rows(less), means)


def test_kept_tokens_are_found_under_their_new_ids(new_rows: Any) -> None:
    new = new_rows(PARTS, texts=TEXTS)
    moved = replace(new, weight=new.weight.roll(5, 0), kept={id: (id + 5) % 20 for id in range(20)})
    torch.testing.assert_close(Focus(CONFIG).rows(moved)[0], Focus(CONFIG).rows(new)[0])


def test_more_tokens_than_are_compared_at_a_time(new_rows: Any) -> None:
    """Each gets what it would get among the first: the order of comparison changes nothing."""
    texts = [f"{new % 3} 7 {new} 8" for new in range(20, 420)] * 2
    new = new_rows([(9,)] * 400, texts=texts)
    rows = Focus(CONFIG).rows(new)
    late = Focus(CONFIG).rows(replace(new, ids=list(new.ids)[300:], parts=[(9,)] * 100))
    torch.testing.assert_close(rows[300:], late)
    assert not np.isclose(rows, new.weight[9]).all(1).any()


def test_only_so_much_of_the_corpus_is_read(new_rows: Any) -> None:
    class Guarded:
        def __iter__(self) -> Any:
            yield from TEXTS
            raise AssertionError("it reads on")

    limited = FocusConfig(window=2, dimensions=8, min_count=2, corpus_tokens=3 * len(TEXTS))
    guarded, whole = new_rows(PARTS, texts=Guarded()), new_rows(PARTS, texts=TEXTS)
    assert torch.equal(Focus(limited).rows(guarded), Focus(CONFIG).rows(whole))


def test_a_text_that_is_longer_than_that_is_cut(new_rows: Any) -> None:
    limited = FocusConfig(window=2, dimensions=8, min_count=2, corpus_tokens=30)
    text, beginning = " ".join(TEXTS), " ".join(TEXTS[:10])
    cut, whole = new_rows(PARTS, texts=[text, text]), new_rows(PARTS, texts=[beginning])
    assert torch.equal(Focus(limited).rows(cut), Focus(CONFIG).rows(whole))
    assert not torch.equal(Focus(CONFIG).rows(new_rows(PARTS, texts=[text])), Focus(CONFIG).rows(whole))
