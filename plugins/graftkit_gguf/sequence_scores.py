"""Scores of whole sequences: what a GGUF file says of a classifier, and of which models llama.cpp computes what.

Where a file's pooling type is RANK, llama.cpp multiplies one hidden state of a sequence with `cls.output`
(`llm_graph_context::build_pooling` in llama-graph.cpp). Of decoders it does so with the last token of Qwen3 alone, and
takes the softmax; of others it would take the first token, which has seen no other, and its loader lacks the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.architecture import head_of, labels_of

from graftkit_gguf.metadata import Metadata

__all__ = ["SCORES", "SCORES_WIDTH", "SCORE_KEYS", "read_labels", "score_metadata"]

SCORES = "cls.output.weight"
"""The matrix that makes scores of a hidden state, `[labels, hidden]`."""

SCORES_WIDTH = "embedding_length_out"
"""The key, without the architecture's name, of how many numbers llama.cpp's server answers with."""
_POOLING, _LABELS = "pooling_type", "classifier.output_labels"
SCORE_KEYS = frozenset({_POOLING, _LABELS, SCORES_WIDTH})
"""The keys, without the architecture's name, that the file of a classifier has besides."""
_RANK = 4
"""llama.cpp's LLAMA_POOLING_TYPE_RANK."""


def score_metadata(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the keys that llama.cpp reads of a classifier, without the architecture's name; none for another model.

    The width of what it answers is the number of labels: its server would read as many numbers as the model is wide.

    Args:
        config: See `complete_config`.

    Raises:
        ModelError: The softmax of its scores is not what they are for.
    """
    if head_of(config) != "sequence":
        return {}
    labels, problem = labels_of(config), config.get("problem_type")
    if len(labels) < 2 or problem not in (None, "single_label_classification"):
        kind = "a single score" if len(labels) < 2 else f"scores of the problem type {problem}"
        raise ModelError(f"llama.cpp gives the softmax of the scores of a sequence, which leaves nothing of {kind}")
    return {_POOLING: _RANK, _LABELS: labels, SCORES_WIDTH: len(labels)}


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
    for key, wanted, default in ((_POOLING, _RANK, 0), (SCORES_WIDTH, len(labels), len(labels))):
        if metadata.integer(f"{architecture}.{key}", default) != wanted:
            raise metadata.error(f"{architecture}.{key}", f"where {SCORES} asks for {wanted}")
    return labels
