"""Refuses a tokenizer.json that draws at random, makes huge texts, or searches with a pattern that takes forever."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.pattern_cost import PatternError, steps_at_most
from graftkit.interfaces.vocabulary_limits import (
    LONGEST_TOKEN,
    MOST_ADDED,
    MOST_CHARACTERS,
    MOST_IDS,
    MOST_MERGES,
    MOST_PIECES,
)
from graftkit.tokenization.panics import no_panic

__all__ = ["CHARACTERS", "MAX_FILE", "MOST_SEARCH", "SLOW", "check_bounds", "check_charsmap"]

MAX_FILE = 64 << 20
"""The most bytes of a tokenizer.json, or of a file beside it; the largest in use have 35 million."""
_MOST_GROWTH = 1000
"""How many times as long a part may make a text."""
_MOST_DECODED = 10
"""The same of the decoder, which makes the text of an answer: those in use make none longer."""
CHARACTERS = 2000
"""Characters of the text for which patterns are judged."""
MOST_SEARCH = 2e8
"""Steps that all patterns together may take for such a text, a few seconds' worth."""
SLOW = "It can match one text in very many ways, such as by repeats that overlap: (a+)+ or a*a*."
"""What an error says of a pattern that could take longer."""
_MOST_ENTRIES = {"vocab": MOST_PIECES, "merges": MOST_MERGES}
"""Part of a model -> how many entries it may have."""
_MOST_BEGINNINGS = 1_200_000
"""Different beginnings, in bytes, of a Unigram model's tokens: the library keeps a table of 290 bytes for each. The
262,144 pieces of Jurassic-2 have a million."""
_LONGEST_REPLACEMENT = 64
"""Bytes that a table of SentencePiece's puts in a character's place: those of its own rules have 33 at most."""
_MOST_TEMPLATE = 1000
"""Tokens and parts that a template puts around a text."""
_MOST_STEPS = 100
_SIZE = struct.Struct("<I")
_COMPOSED = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "BertNormalizer": 4, "Lowercase": 3, "ByteLevel": 4}
"""Step -> how many characters it makes of one at most."""


def check_bounds(spec: Mapping[str, Any], where: str) -> None:
    """Checks what a tokenizer.json says before the library runs it.

    Args:
        spec: The tokenizer.json.
        where: Its folder, for errors.

    Raises:
        ModelError: It encodes at random; a part of it could make a text over a thousand times as long, or its decoder
            over ten times; its patterns could take very long, or can't be judged; it has hundreds of steps, steps of no
            type or that are no objects, more or longer tokens or more merges than any model in use; or a table in it
            claims more bytes than it has.
    """
    model = spec.get("model")
    dropout = model.get("dropout") if isinstance(model, Mapping) else None
    if dropout:
        raise ModelError(
            f"tokenizer.json has a dropout of {dropout!r}: it would encode each text at random",
            where=where,
            hint='Set "dropout" to null in its model: that is how such a tokenizer is used once it is trained.',
        )
    _check_size(model, where)
    _check_added(spec.get("added_tokens"), where)
    search, longer = 0.0, 1.0
    for part in ("normalizer", "pre_tokenizer", "decoder", "post_processor"):
        steps = list(_steps(spec.get(part), part, where))
        if len(steps) > _MOST_STEPS:
            raise ModelError(f"the {part} of tokenizer.json has {len(steps):,} steps", where=where)
        for step in steps:
            _check_step(step, part, where)
        _check_template(steps, part, where)
        for step in steps:
            search += _search_steps(step.get("pattern"), int(CHARACTERS * longer), part, where)
            if search > MOST_SEARCH:
                raise ModelError(
                    f"a pattern in the {part} of tokenizer.json could take forever: {step['pattern']['Regex']}",
                    where=where,
                    hint=SLOW,
                )
            if "content" in step:
                longer = min(longer * _growth(step), _MOST_GROWTH)
        _check_growth(steps, part, where)


def _check_step(step: Mapping[str, Any], part: str, where: str) -> None:
    """Refuses a step whose type is no text, by whose fields the library goes then, and one that cuts into nothing."""
    kind = step.get("type", "")
    if not isinstance(kind, str):
        raise ModelError(f"a step in the {part} of tokenizer.json has a type that is no text", where=where)
    if kind == "FixedLength" and step.get("length") == 0:
        raise ModelError(f"the {part} of tokenizer.json cuts texts into pieces of no length", where=where)


def _check_size(model: Any, where: str) -> None:
    """Refuses a model of very many pieces: building it takes seconds and hundreds of megabytes."""
    for part, most in _MOST_ENTRIES.items() if isinstance(model, Mapping) else ():
        entries = model.get(part)
        if isinstance(entries, Mapping | list) and len(entries) > most:
            what = "tokens" if part == "vocab" else part
            raise ModelError(f"tokenizer.json has {len(entries):,} {what}; {most:,} are allowed", where=where)
    vocab = model.get("vocab") if isinstance(model, Mapping) else None
    if isinstance(vocab, Mapping):
        _check_ids(vocab.values(), where)
        _check_letters([piece for piece in vocab if isinstance(piece, str)], where)
    elif isinstance(vocab, list):
        found = [entry[0] for entry in vocab if isinstance(entry, list) and entry and isinstance(entry[0], str)]
        _check_letters(found, where)
        _check_beginnings(found, where)


def _check_ids(ids: Iterable[Any], where: str) -> None:
    """Refuses ids beyond those of any model: what is made for each id is made for those without a token, too."""
    highest = max((id for id in ids if isinstance(id, int)), default=0)
    if highest >= MOST_IDS:
        raise ModelError(
            f"tokenizer.json has a token with the id {highest:,}; ids up to {MOST_IDS - 1:,} are read", where=where
        )


def _check_letters(pieces: Sequence[str], where: str) -> None:
    """Refuses very long tokens: the library holds each several times, and answers may repeat one."""
    longest = max(map(len, pieces), default=0)
    if longest > LONGEST_TOKEN:
        raise ModelError(
            f"tokenizer.json has a token of {longest:,} characters; {LONGEST_TOKEN:,} are read", where=where
        )
    letters = sum(map(len, pieces))
    if letters > MOST_CHARACTERS:
        raise ModelError(
            f"the tokens of tokenizer.json have {letters:,} characters together; {MOST_CHARACTERS:,} are read",
            where=where,
        )


def _check_beginnings(pieces: Sequence[str], where: str) -> None:
    """Refuses a Unigram model whose tokens begin in very many ways, for each of which the library keeps a table."""
    last, beginnings = b"", 0
    for piece in sorted(piece.encode("utf-8", "surrogatepass") for piece in pieces):
        beginnings += len(piece) - _shared(last, piece)
        last = piece
    if beginnings > _MOST_BEGINNINGS:
        raise ModelError(
            f"the tokens of tokenizer.json have {beginnings:,} different beginnings; {_MOST_BEGINNINGS:,} are read",
            where=where,
        )


def _shared(one: bytes, other: bytes) -> int:
    """Returns how many bytes two texts begin with alike."""
    alike, most = 0, min(len(one), len(other))
    while alike < most:
        middle = (alike + most + 1) // 2
        if one[:middle] == other[:middle]:
            alike = middle
        else:
            most = middle - 1
    return alike


def _check_added(added: Any, where: str) -> None:
    if isinstance(added, list) and len(added) > MOST_ADDED:
        raise ModelError(
            f"tokenizer.json has {len(added):,} added tokens; {MOST_ADDED:,} are allowed",
            where=where,
        )
    if isinstance(added, list):
        tokens = [token for token in added if isinstance(token, Mapping)]
        _check_ids((token.get("id") for token in tokens), where)
        contents = (token.get("content") for token in tokens)
        _check_letters([content for content in contents if isinstance(content, str)], where)


def _check_template(steps: Sequence[Mapping[str, Any]], part: str, where: str) -> None:
    """Refuses templates that put very many tokens around a text, or the text itself in very many places."""
    for key in ("single", "pair"):
        added, texts = 0, 1
        for step in steps:
            pieces, special = step.get(key), step.get("special_tokens")
            names = [_special_name(piece) for piece in pieces] if isinstance(pieces, list) else []
            added += sum(_tokens_of(special, name) for name in names)
            texts *= max(1, names.count(None))
            if added * texts > _MOST_TEMPLATE or texts > _MOST_TEMPLATE:
                raise ModelError(
                    f"the {part} of tokenizer.json puts over {_MOST_TEMPLATE:,} tokens around a text, or the text in "
                    "as many places",
                    where=where,
                )


def _special_name(piece: Any) -> str | None:
    """Returns the name of the tokens that a template's part stands for, or None where it stands for a text."""
    special = piece.get("SpecialToken") if isinstance(piece, Mapping) else None
    return str(special.get("id")) if isinstance(special, Mapping) else None


def _tokens_of(special: Any, name: str | None) -> int:
    """Returns how many tokens a template's part makes, without those of a text."""
    entry = special.get(name) if isinstance(special, Mapping) and name is not None else None
    lists = [entry.get(key) for key in ("ids", "tokens")] if isinstance(entry, Mapping) else []
    return max((len(found) for found in lists if isinstance(found, list)), default=1)


def _check_growth(steps: Sequence[Mapping[str, Any]], part: str, where: str) -> None:
    growth, most = 1.0, _MOST_DECODED if part == "decoder" else _MOST_GROWTH
    for step in steps:
        check_charsmap(_charsmap_of(step), where)
        growth *= _growth(step)
        if growth > most:
            raise ModelError(f"the {part} of tokenizer.json could make a text over {most:,} times as long", where=where)


_SEQUENCES = ("normalizers", "pretokenizers", "decoders", "processors")


def _steps(spec: Any, part: str, where: str) -> Iterator[Mapping[str, Any]]:
    """Yields a part's steps in their order: sequences, and those within them.

    The library passes over fields that a step has no use for, so that such a list says nothing of what the step is.

    Raises:
        ModelError: One is no object: the library reads lists of the values of its fields, too, but writes none.
    """
    open_parts = [] if spec is None else [spec]
    while open_parts:
        step = open_parts.pop()
        if not isinstance(step, Mapping):
            raise ModelError(f"a step in the {part} of tokenizer.json is no object", where=where)
        yield step
        for key in _SEQUENCES:
            if isinstance(step.get(key), list):
                open_parts += reversed(step[key])


def _search_steps(pattern: Any, length: int, part: str, where: str) -> float:
    """Returns how many steps a regular expression may take for a text of that many characters."""
    expression = pattern.get("Regex") if isinstance(pattern, Mapping) else None
    if not isinstance(expression, str):
        return 0.0
    try:
        return steps_at_most(expression, length)
    except PatternError as error:
        from tokenizers import Regex  # which those who only write a tokenizer.json don't need

        with no_panic(where):
            Regex(expression)  # the library says best what is malformed
        raise ModelError(
            f"a pattern in the {part} of tokenizer.json could take forever, since {error}: {expression}", where=where
        ) from None


def _growth(step: Mapping[str, Any]) -> float:
    """Returns how many characters a step makes of one at most.

    The library tells a step without a type by its fields, so these count whatever type it claims.
    """
    growth = float(_COMPOSED.get(str(step.get("type", "BertNormalizer")), 1))  # none else of these can lack its type
    if "content" in step:
        growth = max(growth, _replacement(step.get("pattern"), step["content"]))
    if "prepend" in step:
        growth = max(growth, 1.0 + len(str(step["prepend"])))
    return max(growth, _longest_replacement(_charsmap_of(step)))


def _replacement(pattern: Any, content: Any) -> float:
    """Returns how many characters `Replace` makes of one at most."""
    text = pattern.get("String") if isinstance(pattern, Mapping) else None
    made = len(content) if isinstance(content, str) else 0
    if isinstance(text, str) and text:
        return made / len(text)
    return 1.0 + made  # of a match that may be empty, and lie between any two characters


def check_charsmap(charsmap: bytes, where: str) -> None:
    """Checks SentencePiece's table of replacements before a library uses it.

    Args:
        charsmap: The trie's size, the trie, and texts that end in NUL.
        where: What has it, for errors.

    Raises:
        ModelError: Its trie is larger than the table, for which the library takes memory before it looks; or it has a
            replacement longer than any in use.
    """
    size, data = _charsmap(charsmap)
    if size > len(data):
        raise ModelError(
            f"the precompiled_charsmap is damaged: it says that its trie has {size:,} bytes, of {len(data):,}",
            where=where,
            hint="Download it again.",
        )
    longest = _longest_replacement(charsmap)
    if longest > _LONGEST_REPLACEMENT:
        raise ModelError(
            f"the precompiled_charsmap replaces a character by {longest:,} bytes; {_LONGEST_REPLACEMENT} are allowed",
            where=where,
        )


def _longest_replacement(charsmap: bytes) -> int:
    size, data = _charsmap(charsmap)
    return max(map(len, data[size:].split(b"\0")), default=0)


def _charsmap(charsmap: bytes) -> tuple[int, bytes]:
    """Returns the bytes that the trie of SentencePiece's table has by its own word, and what follows."""
    if len(charsmap) < _SIZE.size:
        return 0, b""
    return _SIZE.unpack_from(charsmap)[0], charsmap[_SIZE.size :]


def _charsmap_of(step: Mapping[str, Any]) -> bytes:
    """Returns the table of a step; nothing where it has none that could be read."""
    try:
        return base64.b64decode(step["precompiled_charsmap"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        return b""
