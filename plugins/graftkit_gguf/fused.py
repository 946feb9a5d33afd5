"""Queries, keys and values that a file has in one tensor, though its model has layers of their own for them.

llama.cpp takes both (`create_tensor_qkv`); its converter writes one tensor where a checkpoint has one layer, as
NomicBERT's first checkpoints do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from graftkit_gguf.architectures import Architecture
from graftkit_gguf.header import GgufHeader, GgufTensor

__all__ = ["with_own_tensors"]

_FUSED, _OWN = "attn_qkv", ("attn_q", "attn_k", "attn_v")


def with_own_tensors(header: GgufHeader, architecture: Architecture) -> GgufHeader:
    """Returns a header that has each such tensor as three, whose rows follow one another in the file.

    Args:
        header: A file's header.
        architecture: Its architecture; one whose layers are fused, too, keeps them so.
    """
    stored = {name for part in architecture.parts for name in part.stored}
    if not stored.issuperset(_OWN) or _FUSED in stored:
        return header
    tensors = [each for tensor in header.tensors.values() for each in _own(tensor)]
    return replace(header, tensors={tensor.name: tensor for tensor in tensors})


def _own(tensor: GgufTensor) -> Iterator[GgufTensor]:
    *inner, rows = tensor.shape
    if f".{_FUSED}." not in tensor.name or rows % len(_OWN):
        yield tensor
        return
    nbytes = tensor.nbytes // len(_OWN)
    for place, name in enumerate(_OWN):
        own, shape = tensor.name.replace(_FUSED, name), (*inner, rows // len(_OWN))
        yield replace(tensor, name=own, shape=shape, offset=tensor.offset + place * nbytes, nbytes=nbytes)
