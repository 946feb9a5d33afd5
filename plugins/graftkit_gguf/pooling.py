"""What is made of a whole sequence: what a GGUF file says of a classifier, and of a model that gives vectors.

A file's pooling type says it (`llm_graph_context::build_pooling` in llama-graph.cpp). By MEAN, CLS and LAST the hidden
states of all tokens, of the first or of the last one are the sequence's vector, of every architecture. By RANK one
hidden state is multiplied with `cls.output`: of Qwen3 the last token's, followed by the softmax; of encoders the first
one's, after a layer `cls` and tanh. Of other decoders it would be the first token, which has seen no other, and the
loader lacks the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import EMBEDDING_POOLING, PooledBy, head_of, labels_of

from graftkit_gguf.header import GgufHeader
from graftkit_gguf.metadata import Metadata

__all__ = [
    "DENSE",
    "POOLING",
    "SCORES",
    "SCORES_WIDTH",
    "SCORE_KEYS",
    "VECTOR_KEYS",
    "gives_vectors",
    "pooling_metadata",
    "read_labels",
    "read_pooling",
]

SCORES, DENSE = "cls.output.weight", "cls.weight"
"""The matrix that makes scores of a hidden state, `[labels, hidden]`, and that of the layer before it, if any."""

POOLING = "pooling_type"
"""The key, without the architecture's name, of what is made of a sequence."""
SCORES_WIDTH = "embedding_length_out"
"""The key of how many numbers llama.cpp's server answers with, likewise."""
_LABELS = "classifier.output_labels"
SCORE_KEYS = frozenset({POOLING, _LABELS, SCORES_WIDTH})
"""The keys that the file of a classifier has besides, likewise."""
VECTOR_KEYS = frozenset({POOLING, _LABELS})
"""Those of a model that gives vectors: llama.cpp's converter names labels wherever a config.json does."""

_VECTORS: Mapping[PooledBy, int] = {"mean": 1, "cls": 2, "lasttoken": 3}
_RANK = 4
"""llama.cpp's `llama_pooling_type`."""


def pooling_metadata(config: Mapping[str, Any], *, shares: bool) -> dict[str, Any]:
    """Returns the keys that llama.cpp reads of a classifier, or of a model of vectors, without the architecture's name.

    The width of a classifier's answers is the number of labels: llama.cpp's server would read as many numbers as the
    model is wide.

    Args:
        config: See `complete_config`; of a language model there are none.
        shares: Whether llama.cpp gives the softmax of scores.

    Raises:
        ModelError: The scores are no labels' of which a text has one: their softmax is not what they are for, or a file
            does not say what they are.
    """
    head = head_of(config)
    if head == "embedding":
        return {POOLING: _VECTORS[config[EMBEDDING_POOLING]]}
    if head != "sequence":
        return {}
    labels, problem = labels_of(config), config.get("problem_type")
    if len(labels) < 2 or problem not in (None, "single_label_classification"):
        kind = "a single score" if len(labels) < 2 else f"scores of the problem type {problem}"
        if shares:
            raise ModelError(f"llama.cpp gives the softmax of the scores of a sequence, which leaves nothing of {kind}")
        raise ModelError(f"a GGUF file says of {kind} only that they are a sequence's, and graftkit can't prove them")
    return {POOLING: _RANK, _LABELS: labels, SCORES_WIDTH: len(labels)}


def read_labels(metadata: Metadata, architecture: str) -> list[str]:
    """Returns the labels of the classifier that a file holds.

    Args:
        metadata: The file's.
        architecture: The architecture's name.

    Raises:
        ModelError: There are fewer than two, or the file asks for something else than their scores.
    """
    labels = metadata.texts(f"{architecture}.{_LABELS}")
    if len(labels) < 2:
        raise metadata.error(f"{architecture}.{_LABELS}", "not two labels at least")
    for key, wanted, default in ((POOLING, _RANK, 0), (SCORES_WIDTH, len(labels), len(labels))):
        if metadata.integer(f"{architecture}.{key}", default) != wanted:
            raise metadata.error(f"{architecture}.{key}", f"where {SCORES} asks for {wanted}")
    return labels


def read_pooling(metadata: Metadata, architecture: str) -> PooledBy | None:
    """Returns what a file's vectors are made of; None where it gives none.

    Args:
        metadata: The file's.
        architecture: The architecture's name.

    Raises:
        ModelError: Its pooling type is no whole number.
    """
    found = metadata.integer(f"{architecture}.{POOLING}", 0)
    return next((by for by, number in _VECTORS.items() if number == found), None)


def gives_vectors(header: GgufHeader) -> bool:
    """Tells whether a file's model gives vectors of sequences."""
    metadata = Metadata(header.path, header.metadata)
    return read_pooling(metadata, metadata.text("general.architecture")) is not None
