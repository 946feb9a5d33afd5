"""Queries, keys and values that a file has in one tensor, though its model has layers of their own for them.

llama.cpp takes both (`create_tensor_qkv`); its converter writes one tensor where a checkpoint has one layer, as
NomicBERT's first checkpoints do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from graftkit_gguf.architectures import Architecture
from graftkit_gguf.header import GgufHeader, GgufTensor
from graftkit_gguf.metadata import Metadata

__all__ = ["with_own_tensors"]

_FUSED, _OWN = "attn_qkv", ("attn_q", "attn_k", "attn_v")


def with_own_tensors(header: GgufHeader, architecture: Architecture) -> GgufHeader:
    """Returns a header that has each such tensor as three, whose rows follow one another in the file.

    Args:
        header: A file's header.
        architecture: Its architecture; one whose layers are fused, too, keeps them so.

    Raises:
        ModelError: The file has such tensors, and does not say how many heads there are.
    """
    stored = {name for part in architecture.parts for name in part.stored}
    fused = any(f".{_FUSED}." in name for name in header.tensors)
    if not fused or not stored.issuperset(_OWN) or _FUSED in stored:
        return header
    metadata = Metadata(header.path, header.metadata)
    queries = metadata.integer(f"{architecture.name}.attention.head_count", least=1)
    keys = metadata.integer(f"{architecture.name}.attention.head_count_kv", queries, least=1)
    heads = dict(zip(_OWN, (queries, keys, keys), strict=True))
    tensors = [each for tensor in header.tensors.values() for each in _own(tensor, heads)]
    return replace(header, tensors={tensor.name: tensor for tensor in tensors})


def _own(tensor: GgufTensor, heads: Mapping[str, int]) -> Iterator[GgufTensor]:
    """Yields the tensors of queries, keys and values, each with as many rows as it has heads; another one as it is."""
    *inner, rows = tensor.shape
    size, left = divmod(rows, sum(heads.values()))
    if f".{_FUSED}." not in tensor.name or left:
        yield tensor
        return
    offset = tensor.offset
    for name, count in heads.items():
        nbytes = tensor.nbytes // rows * size * count
        own = tensor.name.replace(_FUSED, name)
        yield replace(tensor, name=own, shape=(*inner, size * count), offset=offset, nbytes=nbytes)
        offset += nbytes
