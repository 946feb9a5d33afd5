"""Refuses a tokenizer.json that draws at random, makes huge texts, or searches with a pattern that takes forever."""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from graftkit.errors import ModelError
from graftkit.interfaces.pattern_cost import PatternError, steps_at_most
from graftkit.interfaces.vocabulary_limits import MOST_ADDED, MOST_CHARACTERS, MOST_IDS, MOST_MERGES, MOST_PIECES
from graftkit.tokenization.panics import no_panic

__all__ = ["CHARACTERS", "MAX_FILE", "MOST_SEARCH", "SLOW", "check_bounds"]

MAX_FILE = 64 << 20
"""The most bytes of a tokenizer.json, or of a file beside it; the largest in use have 35 million."""
_MOST_GROWTH = 1000
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
_MOST_TEMPLATE = 1000
"""Tokens and parts that a template puts around a text."""
_MOST_STEPS = 100
_COMPOSED = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "BertNormalizer": 4, "Lowercase": 3, "ByteLevel": 4}
"""Step -> how many characters it makes of one at most."""


def check_bounds(spec: Mapping[str, Any], where: str) -> None:
    """Checks what a tokenizer.json says before the library runs it.

    Args:
        spec: The tokenizer.json.
        where: Its folder, for errors.

    Raises:
        ModelError: It encodes at random; a part of it could make a text over a thousand times as long; its patterns
            could take very long, or can't be judged; it has hundreds of steps, steps of no type or that are no objects,
            or more tokens or merges than any model in use; or a table in it claims more bytes than it has.
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
    """Refuses a vocabulary of very long tokens, each of which the library holds several times."""
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
        _check_ids((token.get("id") for token in added if isinstance(token, Mapping)), where)


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
    growth = 1.0
    for step in steps:
        if "precompiled_charsmap" in step:
            _check_charsmap(step["precompiled_charsmap"], where)
        growth *= _growth(step)
        if growth > _MOST_GROWTH:
            raise ModelError(
                f"the {part} of tokenizer.json could make a text over {_MOST_GROWTH:,} times as long", where=where
            )


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
    if "precompiled_charsmap" in step:
        growth = max(growth, _longest_replacement(step["precompiled_charsmap"]))
    return growth


def _replacement(pattern: Any, content: Any) -> float:
    """Returns how many characters `Replace` makes of one at most."""
    text = pattern.get("String") if isinstance(pattern, Mapping) else None
    made = len(content) if isinstance(content, str) else 0
    if isinstance(text, str) and text:
        return made / len(text)
    return 1.0 + made  # of a match that may be empty, and lie between any two characters


def _longest_replacement(charsmap: Any) -> float:
    """Returns the length of the longest text in SentencePiece's table: trie's size, trie, texts ending in NUL."""
    size, data = _charsmap(charsmap)
    return float(max(map(len, data[size:].split(b"\0")), default=1) or 1)


def _check_charsmap(charsmap: Any, where: str) -> None:
    """Refuses a table whose trie is larger than the table: the library takes memory for it before it looks."""
    size, data = _charsmap(charsmap)
    if size > len(data):
        raise ModelError(
            f"the precompiled_charsmap of tokenizer.json is damaged: it says that its trie has {size:,} bytes, "
            f"of {len(data):,}",
            where=where,
            hint="Download it again.",
        )


def _charsmap(charsmap: Any) -> tuple[int, bytes]:
    """Returns the bytes that the trie of SentencePiece's table has by its own word, and what follows."""
    try:
        data = base64.b64decode(charsmap)
        (size,) = struct.unpack_from("<I", data)
    except (TypeError, ValueError, binascii.Error, struct.error):
        return 0, b""
    return size, data[4:]
