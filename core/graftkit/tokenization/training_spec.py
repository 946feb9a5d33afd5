"""Checks of a `TrainingSpec` that every backend needs before it trains."""

from __future__ import annotations

from dataclasses import replace

from graftkit.errors import RequestError
from graftkit.interfaces.tokenizer import ROLES
from graftkit.interfaces.vocabulary import TrainingSpec
from graftkit.interfaces.vocabulary_limits import MOST_PIECES
from graftkit.tokenization.words import is_text

__all__ = ["check_room", "checked_spec", "with_unknown"]


def checked_spec(spec: TrainingSpec) -> TrainingSpec:
    """Returns a specification as it is, once its special tokens and roles are found to be consistent.

    Raises:
        RequestError: A special token is empty, repeated or no Unicode text; a role is unknown, or its token is not
            among the special ones; or texts are to start with a `bos` token and none has that role; or more ids are
            asked for than a tokenizer may have.
    """
    if spec.vocab_size > MOST_PIECES:
        raise RequestError(
            f"a vocabulary of {spec.vocab_size:,} is too large", hint=f"Ask for {MOST_PIECES:,} at most."
        )
    tokens = spec.special_tokens
    if not all(map(is_text, tokens)):
        raise RequestError(f"special tokens must be Unicode text, not {', '.join(map(repr, tokens))}")
    wrong = sorted({token for token in tokens if not token or tokens.count(token) > 1})
    if wrong:
        raise RequestError(f"special tokens must be different and not empty: {', '.join(map(repr, wrong))}")
    for role, token in spec.roles.items():
        if role not in ROLES:
            raise RequestError(f"no role is called '{role}'", hint=f"Known: {', '.join(ROLES)}.")
        if token not in tokens:
            raise RequestError(f"the role '{role}' is given to {token!r}, which is no special token", hint="Add it.")
    if spec.adds_bos and "bos" not in spec.roles:
        raise RequestError("texts are to start with a token that has the role 'bos', and none has", hint="Name one.")
    return spec


def with_unknown(spec: TrainingSpec, token: str = "[UNK]") -> TrainingSpec:
    """Returns a specification in which a token has the role `unk`.

    Args:
        spec: What was asked for; returned as it is where a token has that role already.
        token: The token that gets the role; added as the last special token where it is not one.
    """
    if "unk" in spec.roles:
        return spec
    tokens = spec.special_tokens if token in spec.special_tokens else (*spec.special_tokens, token)
    return replace(spec, special_tokens=tokens, roles={**spec.roles, "unk": token})


def check_room(spec: TrainingSpec, needed: int, what: str) -> None:
    """Checks that a vocabulary can hold its special tokens and what its family can't do without.

    Args:
        spec: What was asked for.
        needed: How many ids the family needs besides the special tokens.
        what: What those ids are for, as the error says it: "the 256 bytes".

    Raises:
        RequestError: `spec.vocab_size` is smaller than both together.
    """
    smallest = len(spec.special_tokens) + needed
    if spec.vocab_size < smallest:
        specials = f"{len(spec.special_tokens)} special tokens and " if spec.special_tokens else ""
        raise RequestError(
            f"a vocabulary of {spec.vocab_size} is too small for {specials}{what}", hint=f"Ask for {smallest} or more."
        )
