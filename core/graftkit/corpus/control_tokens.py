"""Which tokens are a chat template's alone: whatever a message says, it does not become one of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping

from graftkit.corpus.layout import lay_out
from graftkit.corpus.template import ChatTemplate
from graftkit.errors import DataError
from graftkit.interfaces.samples import Conversation, Message
from graftkit.interfaces.tokenizer import AddedTokens, ControlTokens, NamedTokens, Tokenizer

__all__ = ["template_tokens", "with_control_tokens"]

_TURNS = (Message("system", "x"), Message("user", "x"), Message("assistant", "x"))
_ASKED = (Conversation(_TURNS, ""), Conversation(_TURNS[1:], ""))


def with_control_tokens(tokenizer: Tokenizer, template: ChatTemplate | None) -> Tokenizer:
    """Returns the tokenizer with the template's control tokens among its special tokens.

    These are the added tokens that the template writes, such as `<think>` or `<tool_call>`, which many tokenizers do
    not flag as special. White space, and words that end or begin with letters or digits, are text: a template writes
    them, too, as in a default system prompt. transformers has the same set for `sanitize_control_tokens`, but for
    such words, and for tokens that a template joins from pieces, such as `'<|' + role + '|>'`.

    Args:
        tokenizer: The tokenizer.
        template: The chat template in use, or None.
    """
    added: object = tokenizer.added_tokens if isinstance(tokenizer, AddedTokens) else None
    if template is None or not isinstance(added, Mapping) or not isinstance(tokenizer, ControlTokens):
        return tokenizer
    plain = [name for name in added if name not in tokenizer.special_tokens and _is_marked(name)]
    templates = [template, *([template.tool_use] if template.tool_use else [])] if plain else []
    written = "\0".join(text for each in templates for text in (*each.literals, *_rendered(each)))
    controls = [name for name in plain if name in written]
    return tokenizer.with_control_tokens(controls) if controls else tokenizer


def template_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Returns the variables with special tokens that a chat template gets, as in transformers: name -> text."""
    names = {id: name for name, id in tokenizer.special_tokens.items()}
    roles = {f"{role}_token": tokenizer.role_token(role) for role in ("bos", "eos", "pad", "unk")}
    own = {name: names.get(id, "") for name, id in roles.items() if id is not None}  # a missing one is undefined
    named: object = tokenizer.named_tokens if isinstance(tokenizer, NamedTokens) else None
    return own | (dict(named) if isinstance(named, Mapping) else {})


def _is_marked(token: str) -> bool:
    """Whether an added token is no word of a text: it has a mark before or after its letters, as `<think>` has."""
    text = token.strip()
    return any(map(str.isalnum, text)) and not (_is_of_a_word(text[0]) and _is_of_a_word(text[-1]))


def _is_of_a_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMN" or character in "_\N{LOWER ONE EIGHTH BLOCK}"


def _rendered(template: ChatTemplate) -> Iterator[str]:
    """Yields what the template writes around messages."""
    for conversation in _ASKED:
        try:
            pieces = lay_out(template, conversation, add_generation_prompt=True, left_out=set())
        except DataError:
            continue
        yield from (piece.text for piece in pieces if piece.message is None)
