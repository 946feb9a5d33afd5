"""How large a vocabulary may be, so that one that is made here can be read again, in bounded time and memory."""

from __future__ import annotations

__all__ = ["LONGEST_TOKEN", "MOST_ADDED", "MOST_CHARACTERS", "MOST_IDS", "MOST_MERGES", "MOST_PARTS", "MOST_PIECES"]

MOST_IDS = 400_000
"""Ids of a tokenizer, with those of added tokens and those without a token: the highest id is one less. Causal
models in use have up to 291,000, and 328,000 with sounds or images as added tokens; of encoders LaBSE (501,153) and
XLM-V (901,629) are beyond it. Everything that makes or reads a vocabulary keeps to it; a model's embedding may have
more rows."""

MOST_PIECES = 300_000
"""Tokens that the model of a tokenizer.json has without the added ones, and that are trained: each takes over a
kilobyte while it is read."""

MOST_ADDED = 100_000
"""Added tokens: each text is searched for them. Models in use have up to 66,000, sounds as tokens."""

MOST_MERGES = 600_000
"""Merges of a BPE tokenizer, of which several may make one token. Models in use have up to 515,000."""

MOST_CHARACTERS = 8_000_000
"""Characters of all tokens together. Models in use have up to 4 million."""

LONGEST_TOKEN = 8_192
"""Characters of one token: an answer is as long as its tokens are, whatever its model repeats."""

MOST_PARTS = 2_700_000
"""Ids of the base model that the new tokens of a changed vocabulary stood for, of all new tokens together."""
