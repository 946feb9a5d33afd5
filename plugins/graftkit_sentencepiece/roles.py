"""Reads special tokens, their roles and added tokens from the files beside a model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.tokenizer import ROLES
from graftkit.interfaces.vocabulary_limits import LONGEST_TOKEN, MOST_IDS
from graftkit.tokenization.side_files import content_of, special_names

from graftkit_sentencepiece.files import SentencePieceFiles
from graftkit_sentencepiece.proto import Kind, ModelProto

__all__ = ["AddedToken", "Roles", "read_roles"]

_OTHERS = ("sep", "cls", "mask")
_ADDS_BOS = ("Llama", "Gemma", "CodeLlama")
"""Tokenizer classes whose default for `add_bos_token` is true."""


@dataclass(frozen=True, slots=True)
class AddedToken:
    """A token that is found in a text before the model encodes the rest.

    Attributes:
        content: Its text.
        id: Its id.
        special: Whether it is special: found only where special tokens are asked for.
        lstrip: Whether white space before it belongs to it.
        rstrip: Whether white space after it belongs to it.
    """

    content: str
    id: int
    special: bool
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class Roles:
    """The special and added tokens of a tokenizer.

    Attributes:
        added: The tokens that are looked for in a text, special pieces of the model among them, by id.
        by_role: "bos", "eos", "pad" or "unk" -> id.
        adds_bos: Whether a text starts with the beginning-of-sequence token.
        prefix_after_tokens: Whether the model's leading space is added after such a token, too.
    """

    added: tuple[AddedToken, ...]
    by_role: Mapping[str, int]
    adds_bos: bool
    prefix_after_tokens: bool

    @property
    def specials(self) -> dict[str, int]:
        """The special tokens and their ids, in the order of their ids."""
        return {token.content: token.id for token in self.added if token.special}


def read_roles(proto: ModelProto, files: SentencePieceFiles, controls: Collection[str] = ()) -> Roles:
    """Reads the roles from the model, tokenizer_config.json, special_tokens_map.json and added_tokens.json.

    As in transformers' tokenizers that run sentencepiece, tokenizer_config.json takes precedence, and tokens that the
    model lacks get the ids that it lists.

    Args:
        proto: The model.
        files: The files.
        controls: Tokens that are special, too.

    Raises:
        ModelError: An added token contradicts the model's pieces, a role names no token, or a token has
            `single_word`, which sentencepiece has no equivalent of.
    """
    config = files.json("tokenizer_config.json")
    config = files.json("special_tokens_map.json") | config
    ids = {piece.text: id for id, piece in enumerate(proto.pieces)}
    named = {role: content_of(config.get(f"{role}_token")) for role in (*ROLES, *_OTHERS)}
    specials = {content for content in named.values() if content} | special_names(config) | {*controls}
    declared = list(_declared(files, config, specials))
    tokens = {token.content: token for token in _pieces(proto, specials)}
    for token in declared:
        _check(proto, token, ids, files.where)
        _add(tokens, token, proto, ids)
    known = ids | {token.content: token.id for token in tokens.values()}
    _check_named(named, known, files.where)
    added = tuple(sorted(tokens.values(), key=lambda token: token.id))
    return Roles(added, _by_role(proto, named, config, known), _adds_bos(config), config.get("legacy") is not False)


def _pieces(proto: ModelProto, specials: set[str]) -> Iterator[AddedToken]:
    """Yields the model's own pieces that are special: control symbols, the unknown piece, and what has a role."""
    for id, piece in enumerate(proto.pieces):
        if piece.kind in (Kind.CONTROL, Kind.UNKNOWN) or piece.text in specials:
            yield AddedToken(piece.text, id, special=True)


def _declared(files: SentencePieceFiles, config: Mapping[str, Any], specials: set[str]) -> Iterator[AddedToken]:
    decoder = config.get("added_tokens_decoder")
    if isinstance(decoder, dict):
        for key, entry in decoder.items():
            yield _from_entry(key, entry, specials, files.where)
        return
    for content, id in files.json("added_tokens.json").items():
        if not isinstance(id, int):
            raise ModelError(f"added_tokens.json gives {content!r} the id {id!r}", where=files.where)
        yield AddedToken(content, id, special=content in specials)


_DIGITS = 10
"""How many digits an id has at most: it is a number of 32 bits."""


def _from_entry(key: str, entry: object, specials: set[str], where: str) -> AddedToken:
    content = content_of(entry)
    if not isinstance(entry, dict) or content is None or not key.isdecimal() or len(key) > _DIGITS:
        raise ModelError(f"the added token {key!r:.40} of tokenizer_config.json is malformed", where=where)
    if entry.get("single_word"):
        raise ModelError(f"the added token {content!r} is a whole word only, which can't be kept here", where=where)
    special = bool(entry.get("special")) or content in specials
    return AddedToken(content, int(key), special, bool(entry.get("lstrip")), bool(entry.get("rstrip")))


def _check(proto: ModelProto, token: AddedToken, ids: Mapping[str, int], where: str) -> None:
    inside = token.id < len(proto.pieces)
    if not 0 <= token.id < MOST_IDS:
        raise ModelError(
            f"the added token {token.content!r} has the id {token.id:,}; ids up to {MOST_IDS - 1:,} are read",
            where=where,
        )
    if len(token.content) > LONGEST_TOKEN:
        raise ModelError(
            f"the added token {token.id} has {len(token.content):,} characters; {LONGEST_TOKEN:,} are read", where=where
        )
    if inside and proto.pieces[token.id].text != token.content:
        other = proto.pieces[token.id].text
        raise ModelError(f"the added token {token.content!r} has the id of the model's piece {other!r}", where=where)
    if ids.get(token.content, token.id) != token.id:
        mine = ids[token.content]
        raise ModelError(f"{token.content!r} is added as {token.id}, but is the model's piece {mine}", where=where)


def _add(tokens: dict[str, AddedToken], token: AddedToken, proto: ModelProto, ids: Mapping[str, int]) -> None:
    """Adds a declared token, unless the model itself finds it in a text."""
    piece = proto.pieces[token.id] if token.content in ids else None
    if piece and not token.special and piece.kind in (Kind.CONTROL, Kind.UNKNOWN):
        return
    if piece and not token.special and piece.kind is Kind.USER_DEFINED:
        return
    tokens[token.content] = token


def _check_named(named: Mapping[str, str | None], known: Mapping[str, int], where: str) -> None:
    for role in ROLES:
        content = named[role]
        if content and content not in known:
            raise ModelError(f"{role}_token is {content!r}, which is no token", where=where)


def _by_role(
    proto: ModelProto, named: Mapping[str, str | None], config: Mapping[str, Any], known: Mapping[str, int]
) -> dict[str, int]:
    """Returns role -> id: as configured, or else as the model says."""
    found: dict[str, int] = {}
    for role in ROLES:
        silent = f"{role}_token" not in config
        content = named[role] or (_own(proto, role) if silent else None)
        if content and content in known:
            found[role] = known[content]
    return found


def _own(proto: ModelProto, role: str) -> str | None:
    if role == "unk":
        return next(piece.text for piece in proto.pieces if piece.kind is Kind.UNKNOWN)
    content = proto.role_pieces.get(role)
    kinds: Sequence[Kind] = [piece.kind for piece in proto.pieces if piece.text == content]
    return content if Kind.CONTROL in kinds else None


def _adds_bos(config: Mapping[str, Any]) -> bool:
    if isinstance(config.get("add_bos_token"), bool):
        return bool(config["add_bos_token"])
    return str(config.get("tokenizer_class", "")).removesuffix("Fast").removesuffix("Tokenizer") in _ADDS_BOS
