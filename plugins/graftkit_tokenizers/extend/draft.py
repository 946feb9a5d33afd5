"""A tokenizer.json to which tokens are being added."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from graftkit.errors import RequestError
from graftkit.tokenization.tokenizer_json import added_token

__all__ = ["Draft"]

Json = dict[str, Any]

_NEVER = -1e6  # a Unigram score with which a piece is never chosen


class Draft:
    """Adds pieces and tokens after the highest id; all other ids stay.

    The library gives added tokens that are no pieces the ids after the model's vocabulary, so those would change as it
    grows. They become pieces, with the ids that they have, which no merge makes.

    Args:
        spec: The tokenizer.json; left as it is.
        size: The highest id plus one.

    Attributes:
        spec: The tokenizer.json as it is now.
        model: Its model.
        next_id: The id of the next token.
        parts: New id -> the base's ids of its text.
    """

    def __init__(self, spec: Mapping[str, Any], size: int) -> None:
        self.model: Json = {**spec["model"], "vocab": spec["model"]["vocab"].copy()}
        self.spec: Json = {**spec, "model": self.model, "added_tokens": list(spec.get("added_tokens", []))}
        self.next_id = size
        self.parts: dict[int, tuple[int, ...]] = {}
        self._keep_added_ids()

    @property
    def family(self) -> str:
        """The model's type."""
        return str(self.model["type"])

    @property
    def prefix(self) -> str:
        """The prefix of pieces inside a word, such as ##; empty for most models."""
        return self.model.get("continuing_subword_prefix") or ""

    @property
    def unknown_id(self) -> int | None:
        """The id of the unknown token, or None."""
        found: int | None = self.model.get("unk_id")
        return self.model["vocab"].get(self.model.get("unk_token")) if "unk_token" in self.model else found

    @property
    def pieces(self) -> dict[int, str]:
        """The model's pieces by their ids."""
        if isinstance(self.model["vocab"], dict):
            return {id: piece for piece, id in self.model["vocab"].items()}
        return dict(enumerate(piece for piece, _ in self.model["vocab"]))

    def join(self, left: str, right: str) -> str:
        """Joins two pieces; the prefix of the right one is dropped."""
        return left + right.removeprefix(self.prefix)

    @property
    def added(self) -> set[str]:
        """The texts of the added tokens."""
        return {token["content"] for token in self.spec["added_tokens"]}

    def add_piece(self, piece: str, parts: Iterable[int], *, score: float = 0.0) -> int:
        """Adds a piece to the model.

        Args:
            piece: How the tokenizer writes it.
            parts: Ids that it is merged from; new ones are replaced by their own parts.
            score: Its log-probability in a Unigram model.
        """
        id = self._put(piece, score)
        self.parts[id] = tuple(old for part in parts for old in self.parts.get(part, (part,)))
        return id

    def add_token(self, text: str, parts: Iterable[int], *, normalized: bool) -> int:
        """Adds an added token, which is found in a text before the rest is split; no piece may be added after one.

        Args:
            text: Its text.
            parts: The base's ids of its text.
            normalized: Whether it is found in normalized text.
        """
        id = self.next_id
        self.next_id += 1
        self.spec["added_tokens"].append(added_token(id, text, special=False, normalized=normalized))
        self.parts[id] = tuple(parts)
        return id

    def with_tokens(self, texts: Iterable[str], *, normalized: bool) -> Json:
        """Returns the tokenizer.json with these added tokens; this draft stays as it is."""
        tokens = [added_token(-1, text, special=False, normalized=normalized) for text in texts]
        return {**self.spec, "added_tokens": [*self.spec["added_tokens"], *tokens]}

    def _put(self, piece: str, score: float) -> int:
        id, vocab = self.next_id, self.model["vocab"]
        if isinstance(vocab, dict):
            vocab[piece] = id
        else:
            vocab.append([piece, score])
        self.next_id += 1
        return id

    def _keep_added_ids(self) -> None:
        vocab = self.model["vocab"]
        known = set(vocab) if isinstance(vocab, dict) else {piece for piece, _ in vocab}
        above = sorted((t for t in self.spec["added_tokens"] if t["content"] not in known), key=lambda t: t["id"])
        for token in above:
            self._check_unreachable(token)
            if isinstance(vocab, dict):
                vocab[token["content"]] = token["id"]
            else:
                vocab.append([token["content"], _NEVER])
        if not isinstance(vocab, dict) and len(vocab) != self.next_id:
            raise RequestError(f"the ids of this Unigram tokenizer have gaps: {len(vocab)} pieces, {self.next_id} ids")

    def _check_unreachable(self, token: Json) -> None:
        """Refuses a token that WordPiece, which takes the longest piece, would find in more places as a piece."""
        raw = self.spec.get("normalizer") and not token.get("normalized")
        if self.family == "WordPiece" and not token.get("special") and (token.get("single_word") or raw):
            raise RequestError(
                f"the added token {token['content']!r} would be found in other places once the vocabulary grows",
                hint="A WordPiece tokenizer can't be extended while it has such a token.",
            )
