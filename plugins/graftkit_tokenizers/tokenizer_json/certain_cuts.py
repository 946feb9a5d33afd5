"""Between which characters a tokenizer.json cuts every text, told from its parts."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any

from graftkit.interfaces.character_sets import Characters
from graftkit.interfaces.pattern_syntax import Alternatives, Condition, Node, Repeat, Series, parse_pattern
from graftkit.tokenization.byte_alphabet import byte_alphabet
from graftkit.tokenization.splitting import GPT2

__all__ = ["CertainCuts"]

_OF_CHARACTERS = frozenset({"NFC", "NFD", "NFKC", "NFKD", "Lowercase", "BertNormalizer"})
"""Normalizers that write an ASCII character, and what stands before or after it, whatever its neighbour is."""

_BY_SPACES = frozenset({"WhitespaceSplit", "Whitespace", "BertPreTokenizer"})


class CertainCuts:
    """Finds characters between which every text is cut: `encode(left + right)` is `encode(left) + encode(right)`.

    Only what follows from the parts of a tokenizer.json is said; where that is nothing, no cut is certain. Pieces that
    the pre-tokenizer makes are encoded one by one, so that a cut is certain

    - where no match of the pre-tokenizer's expression, and nothing that it looks ahead at, goes on from the one
      character to the other, and both are always matched: then the second character is to the matches before it what
      the end of the text is, and the first one nothing to those after it;
    - before a space after a letter or digit, where the pre-tokenizer splits at spaces;
    - without a pre-tokenizer that splits, where no piece of a BPE vocabulary has the two characters side by side,
      since no merge can join them then.

    Args:
        spec: A tokenizer.json.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self._spec = spec
        self._known: dict[tuple[str, str], bool] = {}
        self._expressions: dict[str, _Expression] = {}
        added = spec.get("added_tokens", [])
        self._ordinary = [token for token in added if not token.get("special")]
        self._may_cut = not spec["model"].get("dropout") and not any(map(_looks_around, self._ordinary))
        self.at_specials = _first_text_is_like_others(spec) and not any(
            _looks_around(token) or (token.get("normalized") and spec.get("normalizer")) for token in added
        )

    def between(self, before: str, after: str) -> bool:
        """Tells whether every text is cut between a character and the one that follows it."""
        pair = (before, after)
        found = self._known.get(pair)
        if found is None:
            found = self._known[pair] = self._may_cut and self._certain(before, after)
        return found

    def _certain(self, before: str, after: str) -> bool:
        if before + after in self._in_added or not (_is_settled(before) and _is_settled(after)):
            return False
        normalizers = list(_steps(self._spec.get("normalizer"), "normalizers"))
        spaces_written = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"} in normalizers
        rest = [part for part in normalizers if part.get("type") != "Replace"]
        if len(normalizers) - len(rest) != spaces_written or any(part["type"] not in _OF_CHARACTERS for part in rest):
            return False
        if normalizers and not (before + after).isascii():
            return False
        splitters = list(_steps(self._spec.get("pre_tokenizer"), "pretokenizers"))
        if spaces_written:
            splitters = [part for part in splitters if not _splits_at(part, " ")]
            before, after = (sign.replace(" ", "▁") for sign in (before, after))
        if not splitters:
            return not rest and self._never_merged(before, after)
        if len(splitters) == 1 and _only_writes_bytes(splitters[0]):
            if normalizers or not (before + after).isascii():
                return False
            signs = {byte: sign for sign, byte in byte_alphabet().items()}
            return self._never_merged(signs[ord(before)], signs[ord(after)])
        return not spaces_written and self._split(splitters, before, after)

    def _split(self, splitters: Sequence[Mapping[str, Any]], before: str, after: str) -> bool:
        """Tells whether one of the splitters cuts for certain, and those before it split without regard to context."""
        for part in splitters:
            kind = part["type"]
            if kind in _BY_SPACES or (kind == "Metaspace" and part.get("split", True)):
                return after == " " and before.isascii() and before.isalnum()
            if kind == "Digits":
                continue
            if kind == "ByteLevel" and part.get("use_regex", True):
                if part.get("add_prefix_space", True) and after != " ":
                    return False
                return self._expression(GPT2).cuts(before, after)
            if kind == "Split" and "Regex" in part["pattern"] and not part.get("invert"):
                if part["behavior"] != "Isolated":
                    return False
                expression = self._expression(part["pattern"]["Regex"])
                if expression.is_one_character or expression.ignores(before, after):
                    continue
                return expression.cuts(before, after)
            return False
        return False

    def _expression(self, pattern: str) -> _Expression:
        if pattern not in self._expressions:
            self._expressions[pattern] = _Expression(pattern)
        return self._expressions[pattern]

    def _never_merged(self, before: str, after: str) -> bool:
        """Tells whether no piece of a BPE vocabulary, which knows both characters, has them side by side."""
        model = self._spec["model"]
        if model["type"] != "BPE" or model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
            return False
        known = all(sign in model["vocab"] and sign not in self._added for sign in (before, after))
        return known and before + after not in self._in_pieces

    @cached_property
    def _added(self) -> Collection[str]:
        return frozenset(token["content"] for token in self._spec.get("added_tokens", []))

    @cached_property
    def _in_pieces(self) -> Collection[str]:
        return _pairs(self._spec["model"]["vocab"])

    @cached_property
    def _in_added(self) -> Collection[str]:
        return _pairs(token["content"] for token in self._ordinary)


class _Expression:
    """Which characters may be read one after the other by a regular expression, looking ahead included."""

    def __init__(self, pattern: str) -> None:
        self._alternatives: Sequence[Node] = ()
        self._sets: list[Characters] = []
        self._following: list[tuple[Characters, Characters]] = []
        self.is_one_character = False
        try:
            node = parse_pattern(pattern)
            if _Reading(self._sets, self._following).read(node)[0]:
                return  # it matches nothing, too
        except ValueError:  # malformed, or it depends on what stands before a place
            return
        self.is_one_character = isinstance(node, Characters)
        self._alternatives = node.parts if isinstance(node, Alternatives) else [node]

    def cuts(self, before: str, after: str) -> bool:
        """Tells whether every text is cut between two characters."""
        if not self._alternatives or not self._always_matches(before) or not self._always_matches(after):
            return False
        return not any(_bounds(left, before)[0] and _bounds(right, after)[0] for left, right in self._following)

    def ignores(self, before: str, after: str) -> bool:
        """Tells whether neither of two characters is ever read, so that they stand in one piece between matches."""
        return bool(self._alternatives) and not any(
            _bounds(found, sign)[0] for found in self._sets for sign in (before, after)
        )

    def _always_matches(self, sign: str) -> bool:
        return any(_always_begins(node, sign) for node in self._alternatives)


class _Reading:
    """Collects what may be read directly after what: Glushkov's construction.

    Args:
        sets: Gets every set of characters that is read.
        following: Gets the pairs.
    """

    def __init__(self, sets: list[Characters], following: list[tuple[Characters, Characters]]) -> None:
        self._sets, self._following = sets, following

    def read(self, node: Node) -> tuple[bool, list[Characters], list[Characters]]:
        """Returns whether a part may take no character, and the sets that it may begin and end with.

        Raises:
            ValueError: It asks for what stands before a place, or where a line or the text begins or ends.
        """
        if isinstance(node, Characters):
            self._sets.append(node)
            return False, [node], [node]
        if isinstance(node, Condition):
            if node.ahead is None:
                raise ValueError("a condition on something other than what follows")
            return True, self.read(node.ahead)[1], []
        if isinstance(node, Repeat):
            empty, first, last = self.read(node.part)
            if node.most is None or node.most > 1:
                self._follow(last, first)
            return empty or not node.least, first, last
        found = [self.read(part) for part in node.parts]
        if isinstance(node, Alternatives):
            firsts = [characters for _, first, _ in found for characters in first]
            lasts = [characters for _, _, last in found for characters in last]
            return any(empty for empty, _, _ in found), firsts, lasts
        return self._series(found)

    def _series(
        self, parts: Iterable[tuple[bool, list[Characters], list[Characters]]]
    ) -> tuple[bool, list[Characters], list[Characters]]:
        empty, first, last = True, list[Characters](), list[Characters]()
        for may_be_empty, begins, ends in parts:
            self._follow(last, begins)
            first = first + begins if empty else first
            last = last + ends if may_be_empty else ends
            empty = empty and may_be_empty
        return empty, first, last

    def _follow(self, last: Iterable[Characters], first: Collection[Characters]) -> None:
        self._following += [(left, right) for left in last for right in first]


def _always_begins(node: Node, sign: str) -> bool:
    """Tells whether a part matches wherever this character stands, whatever follows."""
    parts = list(node.parts) if isinstance(node, Series) else [node]
    while parts and isinstance(parts[0], Repeat) and not parts[0].least and _never_takes(parts[0].part, sign):
        parts.pop(0)
    needed = parts.pop(0) if parts else None
    if isinstance(needed, Repeat) and needed.least == 1:
        needed = needed.part
    optional = all(isinstance(part, Repeat) and not part.least for part in parts)
    return optional and isinstance(needed, Characters) and _bounds(needed, sign)[1]


def _never_takes(node: Node, sign: str) -> bool:
    return isinstance(node, Characters) and not _bounds(node, sign)[0]


def _bounds(found: Characters, sign: str) -> tuple[bool, bool]:
    """Returns whether a set may hold a character, and whether it does."""
    if found.kind == "ranges":
        holds = any(first <= ord(sign) <= last for first, last in found.ranges)
        return holds, holds
    if found.kind == "categories":
        holds = unicodedata.category(sign) in found.categories
        return holds, holds
    if found.kind == "unknown":
        return True, False
    bounds = [_bounds(part, sign) for part in found.parts]
    if found.kind == "not":
        return not bounds[0][1], not bounds[0][0]
    joined = any if found.kind == "or" else all
    return joined(may for may, _ in bounds), joined(must for _, must in bounds)


def _is_settled(sign: str) -> bool:
    """Tells whether a character's category has been the same since Unicode 3.2, so that libraries agree on it."""
    return sign.isascii() or unicodedata.category(sign) == unicodedata.ucd_3_2_0.category(sign) != "Cn"


def _pairs(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(left + right for text in texts for left, right in pairwise(text))


def _steps(part: Mapping[str, Any] | None, name: str) -> Iterator[Mapping[str, Any]]:
    """Yields the parts of a sequence, or the one part."""
    if part is None:
        return
    if part["type"] == "Sequence":
        for inner in part[name]:
            yield from _steps(inner, name)
        return
    yield part


def _only_writes_bytes(part: Mapping[str, Any]) -> bool:
    return bool(
        part["type"] == "ByteLevel" and not part.get("use_regex", True) and not part.get("add_prefix_space", True)
    )


def _splits_at(part: Mapping[str, Any], sign: str) -> bool:
    return bool(part["type"] == "Split" and part["pattern"] == {"String": sign})


def _looks_around(token: Mapping[str, Any]) -> bool:
    """Tells whether an added token depends on, or takes, what stands beside it."""
    return any(token.get(flag) for flag in ("lstrip", "rstrip", "single_word"))


def _first_text_is_like_others(spec: Mapping[str, Any]) -> bool:
    """Tells whether what stands after a special token is encoded as at the beginning of a text."""
    splitters = _steps(spec.get("pre_tokenizer"), "pretokenizers")
    return all(part.get("prepend_scheme") != "first" for part in splitters)
